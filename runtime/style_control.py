"""The style of a stream: read, verified and prepared when it is set, due when the next frame is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.pipeline import Pipeline

if TYPE_CHECKING:
    from live2diff_trt.engine.initialisers import BundleInitialisers
    from live2diff_trt.engine.restyle import StyledWeights

_OWN = ""
"""``StyledWeights.identity`` of the bundle's own weights."""


@dataclass(frozen=True, eq=False)
class _Preparing:
    """Weights on their way, and what will go on with them, unless they are not wanted any more."""

    identity: str
    ready: Future[Callable[[], None]]
    unwanted: Event


class StyleControl:
    """Which weights a pipeline is to have.

    Args:
        pipeline: that has them.
        bundle: whose weights they are, or take the place of; None: no others can be had.
    """

    def __init__(self, pipeline: Pipeline, bundle: Bundle | None) -> None:
        self._pipeline = pipeline
        self._bundle = bundle
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="style")  # one style at a time, beside the stream
        self._base: BundleInitialisers | None = None
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
        weights = None if style is None and self._in_effect == _OWN else self._load(style)
        self._drop()
        if weights is None or weights.identity == self._in_effect:
            return
        self._preparing = self._prepare(weights)
        if wait:
            self._wait_for(self._preparing)

    def take(self) -> None:
        """Let the pipeline go on with the style that is due. If it can not, say so once, and keep the old one."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            go_on = preparing.ready.result()
            go_on()
            self._in_effect = preparing.identity

    def close(self) -> None:
        """End what is being prepared, so that the pipeline may be closed; closing twice is harmless."""
        self._drop()
        self._thread.shutdown(cancel_futures=True)

    def _prepare(self, weights: StyledWeights) -> _Preparing:
        unwanted = Event()

        def check() -> None:
            if unwanted.is_set():
                raise ControlError(f"{weights.describe()} is not wanted any more", "Set it again, if it is after all")

        return _Preparing(weights.identity, self._thread.submit(self._pipeline.prepare_style, weights, check), unwanted)

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

    def _load(self, style: object) -> StyledWeights:
        from live2diff_trt.engine.initialisers import BundleInitialisers  # needs onnx
        from live2diff_trt.engine.restyle import StyledWeights, load_style

        if not isinstance(style, str | Path | None):
            raise ControlError(
                f"a style is {style!r}", "Name a file that `live2diff-trt restyle` wrote, a bundle's folder, or None"
            )
        if self._bundle is None:
            raise ControlError("this stream knows no bundle whose weights could change", "Open it with Stream.open")
        if self._base is None:
            self._base = BundleInitialisers.open(self._bundle.folder, self._bundle.digest)
        return StyledWeights(self._base, None if style is None else load_style(self._base, style))
