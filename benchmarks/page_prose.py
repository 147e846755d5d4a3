"""What the performance page says around its tables: how each figure was measured. Results fill the braces."""

INTRODUCTION = """# Performance

Written by `live2diff-trt bench page` from `benchmarks/results/`, where every sample lies; a test keeps the two alike.

`live2diff-trt bench suite` measures a machine in one run: a base point with every backend, then one axis at a time
away from it with TensorRT's and PyTorch's best, every point a process of its own that has the GPU for itself. Bundles
have random weights, those that `live2diff-trt export --random-weights --seed 0` draws; PyTorch's rows make the same
networks from the same seed. What is fed in is random. Backends take turns, a block of samples each. Times are medians;
beside them stands the 99th percentile. GB, TB and TFLOP are decimal. `live2diff-trt bench compare A.json B.json` says
what became slower between two runs. Results that name another command are of an earlier version, before the suite.

× of the limit: how many times as long something takes as what it counts would at the rates that the same device was
measured at in the same run: its products and convolutions at the rate of a large matrix product, then its kv-caches
(for a kernel of ours: all that it moves) at the rate of copying, nothing overlapped. Start-up and memory have no such
limit."""

NOT_RUN = "Not run, or not timed:"

TARGETS = "At {stream}."

UNET = """One tick of the UNet alone, T = {steps} rows, every backend on the same inputs in one process, timed in
turns. `torch-eager` is our network as PyTorch runs it, its caches never moved; `torch-graph` the same, captured into
a CUDA graph; `torch-compile` compiled, then captured. The error is the length of the difference from what PyTorch
computes in float32, as a part of that result's length (‖found − wanted‖₂ / ‖wanted‖₂), of the worst row."""

LIMIT = """The limit is {limit} ms: {tflop:.4g} TFLOP at the measured rate of a matrix product ({compute} ms), then
{gigabytes:.3g} GB of kv-caches read once at the measured rate of copying ({move} ms). A multiplication and an
addition are two operations."""

FRAME = """From uint8 in ordinary host memory to uint8 in host memory, depth and both autoencoders included; decoding
and encoding of the video are not. The interval is that from one finished frame to the next while the next picture is
always there; FPS is 1000 / ms. PyTorch's rows do the same work: all but the drawing of noise in one CUDA graph,
pinned memory, both pictures of a frame encoded as one batch. The error is that of the first frames' pictures, measured
from grey, as above."""

LATENCY = """From the moment a frame is given to the stream until its picture is in host memory, while frames come
more slowly than they could be made: a frame waits for T − 1 others to come before its last tick. What is beyond
those ticks is counted from the moment the last of them came."""

LATENCY_AT_ONCE = """Frames were sent one at a time, each as soon as the call for the last one returned; a frame is
delivered T − 1 calls after its own."""

STAGES = """Each stage on the device was captured into a graph of its own, and all were timed in turns, so the parts
need not add up exactly. PyTorch encodes the picture and its depth as one batch, so its `enter` is not taken apart."""

KERNELS = """Our own kernels, each launched in a row in one graph, on as many different tensors as no GPU caches.
Moved is what has to be read and written once: of the attention the visible keys and values, q, k and v, which are
read, and the output and the new slot, which are written."""

START_UP = "What a user waits for before the first frame, by the host's clock, every step a process of its own."

MEMORY = """A session's memory is estimated before any of it is taken. Beside the estimate: by how much the GPU's
free memory fell when a stream was opened in a new process. TensorRT's part of the estimate (weights, scratch) and
that of driver and kernels were measured when the plans were first opened on this GPU; the rest is computed."""

QUALITY = """Pictures of a real clip, each option's against those of the same bundle without it: the mean over all
frames, and the worst frame. PSNR over frames that are not equal; SSIM of the luma, windows of 11 pixels."""

AXIS = """What is ours is TensorRT's best form (without a GPU: ONNX Runtime), beside PyTorch's best row. Faster: who is,
and how much more time the other one takes. The limit is that of our own figure."""

SPEED_LOG = "What was tried to make a tick faster, what was expected of it, and what came of it."
