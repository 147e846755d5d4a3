"""Bundle → something that executes on the machine at hand. ONNX Runtime needs no build; it is the way without a GPU."""
