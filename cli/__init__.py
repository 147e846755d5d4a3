"""The command ``live2diff-trt``. The only place that prints."""
