"""The style of a stream: read, verified and prepared when it is set, due when the next frame is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.styles import Styles

_OWN = ""
"""``StyledWeights.identity`` of the bundle's own weights."""


@dataclass(frozen=True, eq=False)
class _Preparing:
    """Weights on their way, and what will go on with them."""

    style: object
    identity: str
    ready: Future[Callable[[], None]]


class StyleControl:
    """Which weights a pipeline is to have.

    Args:
        pipeline: that has them.
        styles: that it may have; None: none but the bundle's own weights.

    Attributes:
        style: in effect, as it was set; None: the bundle's own weights.
    """

    def __init__(self, pipeline: Pipeline, styles: Styles | None) -> None:
        self.style: object = None
        self._pipeline = pipeline
        self._styles = styles
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="style")  # one style at a time, beside the stream
        self._in_effect = _OWN
        self._preparing: _Preparing | None = None

    @property
    def is_due(self) -> bool:
        """Whether another style is wanted than the one in effect, and is ready, or turned out not to be had."""
        return self._preparing is not None and self._preparing.ready.done()

    def set(self, style: object, *, wait: bool) -> None:
        """Want a style; raise what ``Stream.set_style`` does, and change nothing, if it can't be had.

        With ``wait``, until it is ready; else it is prepared in another thread.
        """
        if style is None and self._in_effect == _OWN:
            self._preparing = None
            return
        if self._styles is None:
            raise ControlError("this stream knows no other weights than its own", "Open it with Stream.open")
        weights = self._styles.find(style)
        if weights.identity == self._in_effect:
            self._preparing = None
            self.style = style
            return
        preparing = _Preparing(style, weights.identity, self._thread.submit(self._pipeline.prepare_style, weights))
        if wait:
            preparing.ready.result()
        self._preparing = preparing

    def take(self) -> None:
        """Let the pipeline go on with the style that is due. If it can not, say so once, and keep the old one."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            go_on = preparing.ready.result()
            go_on()
            self.style, self._in_effect = preparing.style, preparing.identity

    def close(self) -> None:
        """Wait for what is being prepared, so that the pipeline may be closed; closing twice is harmless."""
        self._thread.shutdown(cancel_futures=True)
