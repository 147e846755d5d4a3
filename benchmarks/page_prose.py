"""What the performance page says around its tables: how each figure was measured. Results fill the braces."""

INTRODUCTION = """# Performance

Written by `live2diff-trt bench page` from `benchmarks/results/`, where every sample lies; a test keeps the two alike.

`live2diff-trt bench gpu` measures everything about one GPU in one run. Its bundle has random weights, those that
`live2diff-trt export --preset sd15 --random-weights --seed 0 --out bundles/sd15` draws; PyTorch's rows make the same
network from the same seed. Times are medians; beside them stands the 99th percentile. GB, TB and TFLOP are decimal.
`live2diff-trt bench compare A.json B.json` says what became slower between two runs.
"""

UNET = """One tick of the UNet alone, T = {steps} rows, every backend on the same inputs in one process, timed in turns.
`torch-eager` is our network as PyTorch runs it, its caches never moved; `torch-graph` the same, captured into a CUDA
graph; `torch-compile` compiled, then captured. A row with a suffix has another form of the temporal attention than the
row without. The error is the length of the difference from what PyTorch computes in float32, as a part of that result's
length (‖found − wanted‖₂ / ‖wanted‖₂), of the worst row."""

LIMIT = """The limit is {limit} ms: {tflop} TFLOP at the measured rate of a matrix product ({compute} ms), then
{gigabytes:.2f} GB of kv-caches read once at the measured rate of copying ({read} ms), nothing overlapped. Counted are
the products and convolutions of {steps} rows, a multiplication and an addition being two operations. The depth path and
the projections of the text are among them, although a tick finds those computed: they are 1 % of it."""

FRAME = """From uint8 in host memory to uint8 in host memory, depth and both autoencoders included; decoding and
encoding of the video are not. FPS is 1000 / ms. The latency is that of frames sent one at a time, each as soon as the
call for the last one returned; a frame is delivered {late}."""

STAGES = """Each stage on the device was captured into a graph of its own, and all were timed in turns, so the parts
need not add up exactly."""

ATTENTION = """The streaming attention at each size: all its launches of a tick, each on a cache of its own, so that
none is still in the GPU's cache. Moved are the visible keys and values, q, k and v, which are read, and the output and
the new slot, which are written. The limit is the measured rate of copying."""

START_UP = "What a user waits for before the first frame, by the host's clock."

MEMORY = """A session's memory is estimated before any of it is taken. Beside the estimate: by how much the GPU's free
memory fell when a stream was opened in a new process. TensorRT's part of the estimate (weights, scratch) and that of
driver and kernels were measured when the plans were first opened on this GPU; the rest is computed."""
