"""One bundle, opened once by TensorRT, for many streams on one GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.cuda_session import estimate_stream, find_plans, open_plans, open_session
from live2diff_trt.runtime.device_memory_use import free_memory
from live2diff_trt.runtime.opened_plans import OpenedPlans
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.prompt_blend import PromptBlend
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.styles import NamedStyles

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights


class CudaEngine:
    """TensorRT: plans, weights and kernels are shared; each stream has contexts and memory of its own.

    The GPU orders the streams' work itself. What a style replaces is loaded once more for each style.

    Raises:
        BackendError: if plans are to be there twice, for styles that are prepared beside a stream.
    """

    def __init__(
        self, bundle: Bundle, spec: StreamSpec, options: TensorRTOptions, max_steps: int, styles: NamedStyles
    ) -> None:
        _check_restyle(options)
        self.spec, self.max_steps, self.styles = spec, max_steps, styles.names
        self._bundle, self._options, self._named = bundle, options, styles
        self._room = StreamRoom(max_steps)
        self._tokenizer = PromptTokenizer(bundle)
        flavour, gpu, stored = find_plans(bundle, StreamRows(spec.steps), options)
        with ExitStack() as opened:
            count = len(styles.names)
            self._plans = opened.enter_context(
                open_plans(spec, stored, flavour, gpu, options, room=self._room, styles=count)
            )
            self._styled: dict[str, OpenedPlans] = {}
            with self.open_stream("", 0) as trial:
                for weights in styles.weights:
                    self._styled[weights.identity] = opened.enter_context(_load_styled(self._plans, weights))
                self._plans.weights.fix()
                for name in styles.names:
                    trial.set_style(name)
            self.stream_bytes = estimate_stream(spec, self._plans, options, self._room).of_one_more.allocated
            self._opened = opened.pop_all()

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream on the shared plans."""
        pipeline = open_session(
            self._bundle,
            self.spec,
            self._plans,
            self._options,
            seed,
            room=self._room,
            tokenizer=self._tokenizer,
            find_plans=self._find,
        )
        return Stream.begin(pipeline, prompt, seed, self._named)

    def free_bytes(self) -> int:
        """Return what is free of the GPU's memory."""
        return free_memory(self._options.device)

    def turn(self) -> AbstractContextManager[None]:
        """Wait for nothing."""
        return nullcontext()

    def close(self) -> None:
        """Let go of the plans: they are freed with the last stream."""
        self._opened.close()

    def _find(self, weights: StyledWeights) -> OpenedPlans:
        return self._styled[weights.identity] if weights.identity else self._plans


def _load_styled(plans: OpenedPlans, weights: StyledWeights) -> OpenedPlans:
    """Load what a style replaces once more, with its weights."""
    with ExitStack() as opened:
        apart = opened.enter_context(plans.load_apart())
        apart.weights.exchange(apart.weights.prepare(weights), {}, apart.memory.stream)
        apart.weights.fix()
        opened.pop_all()
    return apart


def _check_restyle(options: TensorRTOptions) -> None:
    if options.hot_restyle:
        raise BackendError(
            "plans that streams share can't be prepared for another style beside one of them",
            "Open the engine without hot_restyle",
        )
