"""One bundle, opened once, for many streams: they share what does not change, and each has a ring of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Protocol

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.schedule import check_max_steps
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.backend import BackendOptions, open_bundle, open_pipeline
from live2diff_trt.runtime.host_memory_estimate import estimate_host_stream
from live2diff_trt.runtime.host_pipeline import HostPipeline
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.prompt_blend import PromptBlend
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom
from live2diff_trt.runtime.turns import Turns


class SharedEngine(Protocol):
    """Opens streams of one bundle on one backend. Its methods may be called by several threads.

    Attributes:
        spec: what a stream begins with.
        max_steps: the largest T that a stream may be changed to.
        stream_bytes: memory that one more stream takes.
    """

    spec: StreamSpec
    max_steps: int
    stream_bytes: int

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream of its own ring, prompt and clock; who opens it closes it.

        Raises:
            ControlError: if the prompt is none.
            DeviceMemoryError: if it does not fit into what is free.
        """

    def free_bytes(self) -> int:
        """Return the memory that is free where streams keep their rings."""

    def turn(self) -> AbstractContextManager[None]:
        """Wait until this stream may compute, and let others wait while the block runs."""

    def close(self) -> None:
        """Let go of what streams share, after the last stream was closed; closing twice is harmless."""


def open_shared_engine(
    folder: str | Path,
    options: BackendOptions,
    *,
    step_list: tuple[int, ...] | None = None,
    max_steps: int = 1,
) -> SharedEngine:
    """Open a bundle for many streams, and one stream for a trial, so that what is missing is said now.

    Args:
        folder: of the bundle.
        options: of the backend, and so which one.
        step_list: denoising steps that streams begin with; None: the bundle's own.
        max_steps: the largest T that there is to be room for; that of the step list, if that is larger.

    Raises:
        BundleError, SpecError, BackendError, PlanStoreError, DeviceMemoryError: as ``Stream.open`` does.
    """
    bundle = open_bundle(folder, options)
    spec = bundle.spec if step_list is None else bundle.spec.with_step_list(step_list)
    max_steps = max(max_steps, spec.steps)
    check_max_steps(max_steps, spec.steps)
    if isinstance(options, TensorRTOptions):
        return CudaEngine(bundle, spec, options, max_steps)
    return HostEngine(bundle, spec, options, max_steps)


class HostEngine:
    """ONNX Runtime: sessions and weights are shared, streams take turns, and so share what a graph needs as it runs."""

    def __init__(self, bundle: Bundle, spec: StreamSpec, options: OnnxRuntimeOptions, max_steps: int) -> None:
        self.spec, self.max_steps = spec, max_steps
        self.stream_bytes = sum(estimate_host_stream(spec, max_steps).values())
        self._bundle, self._options = bundle, options
        self._graphs = OnnxGraphs(bundle.folder, bundle.manifest.signatures, options)
        self._turns = Turns()
        self.open_stream("", 0).close()

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream on the shared graphs."""
        room = StreamRoom(self.max_steps)
        pipeline = HostPipeline(self._bundle, self.spec, self._options, seed, room=room, graphs=self._graphs)
        return _start(pipeline, prompt, seed)

    def free_bytes(self) -> int:
        """Return what the machine can give without swapping."""
        try:
            psutil = import_module("psutil")
        except ImportError as error:
            raise BackendError(
                f"free memory can't be measured ({error})", "Install it with `pip install live2diff-trt[serve]`"
            ) from error
        return int(psutil.virtual_memory().available)

    def turn(self) -> AbstractContextManager[None]:
        """Wait for those that asked before: two at once would take each other's cores, and memory for both."""
        return self._turns.take()

    def close(self) -> None:
        """Let go of the graphs: they are freed with the last stream."""
        self.__dict__.pop("_graphs", None)


class CudaEngine:
    """TensorRT: streams of one bundle on one GPU, which orders their work itself."""

    def __init__(self, bundle: Bundle, spec: StreamSpec, options: TensorRTOptions, max_steps: int) -> None:
        self.spec, self.max_steps = spec, max_steps
        self._bundle, self._options = bundle, options
        self.open_stream("", 0).close()  # measures the plans, if that was never done on this GPU
        self.stream_bytes = self._estimate()

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream with plans of its own."""
        room = StreamRoom(self.max_steps)
        return _start(open_pipeline(self._bundle, self.spec, self._options, seed, room=room), prompt, seed)

    def free_bytes(self) -> int:
        """Return what is free of the GPU's memory."""
        from live2diff_trt.runtime.device_memory_use import free_memory

        return free_memory(self._options.device)

    def turn(self) -> AbstractContextManager[None]:
        """Wait for nothing."""
        return nullcontext()

    def close(self) -> None:
        """Do nothing: each stream closes what is its own."""

    def _estimate(self) -> int:
        from live2diff_trt.runtime.cuda_session import estimate_for

        estimate = estimate_for(self._bundle, self.spec, self._options, room=StreamRoom(self.max_steps))
        if estimate is None:
            raise BackendError(
                "the memory of these plans was not measured", "Build them again with `live2diff-trt build --overwrite`"
            )
        return estimate.allocated


def _start(pipeline: Pipeline, prompt: str | PromptBlend, seed: int) -> Stream:
    """Make a stream of a pipeline; it is closed if the prompt is refused."""
    stream = Stream(pipeline, seed=seed)
    try:
        stream.set_prompt(prompt)
    except BaseException:
        stream.close()
        raise
    return stream
