"""One bundle, opened once by TensorRT, for many streams on one GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.cuda_session import estimate_stream, find_plans, open_plans, open_session
from live2diff_trt.runtime.device_memory_use import free_memory
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.prompt_blend import PromptBlend
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows


class CudaEngine:
    """TensorRT: plans, weights and kernels are shared; each stream has contexts and memory of its own.

    The GPU orders the streams' work itself.

    Raises:
        BackendError: if plans are to be there twice, for styles that are prepared beside a stream.
    """

    def __init__(self, bundle: Bundle, spec: StreamSpec, options: TensorRTOptions, max_steps: int) -> None:
        _refuse_spare_plans(options)
        self.spec, self.max_steps = spec, max_steps
        self._bundle, self._options = bundle, options
        self._room = StreamRoom(max_steps)
        self._tokenizer = PromptTokenizer(bundle)
        flavour, gpu, stored = find_plans(bundle, StreamRows(spec.steps), options)
        self._opened = open_plans(spec, stored, flavour, gpu, options, room=self._room)
        try:
            self._opened.weights.fix()
            self.open_stream("", 0).close()
            self.stream_bytes = estimate_stream(spec, self._opened, options, self._room).of_one_more.allocated
        except BaseException:
            self.close()
            raise

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream on the shared plans."""
        pipeline = open_session(
            self._bundle, self.spec, self._opened, self._options, seed, room=self._room, tokenizer=self._tokenizer
        )
        return Stream.begin(pipeline, prompt, seed)

    def free_bytes(self) -> int:
        """Return what is free of the GPU's memory."""
        return free_memory(self._options.device)

    def turn(self) -> AbstractContextManager[None]:
        """Wait for nothing."""
        return nullcontext()

    def close(self) -> None:
        """Let go of the plans: they are freed with the last stream."""
        self._opened.close()


def _refuse_spare_plans(options: TensorRTOptions) -> None:
    if options.hot_restyle:
        raise BackendError(
            "plans that streams share can't be prepared for another style beside one of them",
            "Open the engine without hot_restyle",
        )
