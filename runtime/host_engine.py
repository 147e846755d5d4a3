"""One bundle, opened once by ONNX Runtime, for many streams."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.runtime.host_memory_estimate import estimate_host_stream
from live2diff_trt.runtime.host_pipeline import HostPipeline, open_styled_graphs
from live2diff_trt.runtime.prompt_blend import PromptBlend
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom
from live2diff_trt.runtime.styles import NamedStyles
from live2diff_trt.runtime.turns import Turns

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights


class SharedGraphs:
    """A bundle's graphs, opened once for the bundle's own weights, and once for each style."""

    def __init__(self, bundle: Bundle, options: OnnxRuntimeOptions, styles: NamedStyles) -> None:
        self.own = OnnxGraphs(bundle.folder, bundle.manifest.signatures, options)
        self._styled = {weights.identity: open_styled_graphs(weights, options) for weights in styles.weights}

    def find(self, weights: StyledWeights) -> OnnxGraphs:
        """Return those with a style's weights."""
        return self._styled[weights.identity] if weights.identity else self.own


class HostEngine:
    """ONNX Runtime: sessions and weights are shared, streams take turns, and so share what a graph needs as it runs."""

    def __init__(
        self, bundle: Bundle, spec: StreamSpec, options: OnnxRuntimeOptions, max_steps: int, styles: NamedStyles
    ) -> None:
        self.spec, self.max_steps, self.styles = spec, max_steps, styles.names
        self.stream_bytes = sum(estimate_host_stream(spec, max_steps).values())
        self._bundle, self._options = bundle, options
        self._named = styles
        self._graphs: SharedGraphs | None = SharedGraphs(bundle, options, styles)
        self._turns = Turns()
        with self.open_stream("", 0) as trial:
            for name in styles.names:
                trial.set_style(name)

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream on the shared graphs."""
        room, graphs = StreamRoom(self.max_steps), self._graphs
        if graphs is None:
            raise BackendError("these graphs were closed", "Open them again")
        pipeline = HostPipeline(
            self._bundle, self.spec, self._options, seed, room=room, graphs=graphs.own, find_graphs=graphs.find
        )
        return Stream.begin(pipeline, prompt, seed, self._named)

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
        self._graphs = None
