"""The style of a stream: read, verified and prepared when it is set, due when the next frame is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.styles import Styles

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights

_OWN = ""
"""``StyledWeights.identity`` of the bundle's own weights."""


@dataclass(frozen=True, eq=False)
class _Preparing:
    """Weights on their way, and what will go on with them, unless they are not wanted any more."""

    style: object
    identity: str
    ready: Future[Callable[[], None]]
    unwanted: Event


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

        With ``wait``, until it is ready; else it is prepared in another thread. One that was on its way, and did not
        take effect, is not wanted any more.
        """
        weights = None if style is None and self._in_effect == _OWN else self._find(style)
        self._drop()
        if weights is None or weights.identity == self._in_effect:
            self.style = style
            return
        self._preparing = self._prepare(style, weights)
        if wait:
            self._wait_for(self._preparing)

    def take(self) -> None:
        """Let the pipeline go on with the style that is due. If it can not, say so once, and keep the old one."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            go_on = preparing.ready.result()
            go_on()
            self.style, self._in_effect = preparing.style, preparing.identity

    def close(self) -> None:
        """End what is being prepared, so that the pipeline may be closed; closing twice is harmless."""
        self._drop()
        self._thread.shutdown(cancel_futures=True)

    def _find(self, style: object) -> StyledWeights:
        if self._styles is None:
            raise ControlError("this stream knows no other weights than its own", "Open it with Stream.open")
        return self._styles.find(style)

    def _prepare(self, style: object, weights: StyledWeights) -> _Preparing:
        unwanted = Event()

        def check() -> None:
            if unwanted.is_set():
                raise ControlError(f"{weights.describe()} is not wanted any more", "Set it again, if it is after all")

        ready = self._thread.submit(self._pipeline.prepare_style, weights, check)
        return _Preparing(style, weights.identity, ready, unwanted)

    def _drop(self) -> None:
        """Want no other style than the one in effect, and end what is done for one that would have been next."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            preparing.unwanted.set()

    def _wait_for(self, preparing: _Preparing) -> None:
        """Wait until a style is ready; if it can't be had, or the caller is interrupted, it is not wanted."""
        try:
            preparing.ready.result()
        except BaseException:
            if self._preparing is preparing:
                self._drop()
            raise
