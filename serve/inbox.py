"""What a visitor sends, on its way to the thread that streams: all controls, and of frames the newest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.serve.messages import Message

MOST_CONTROLS = 64

Reply = Callable[[Live2DiffError | None], None]
"""Told, in the thread that streams, what was wrong with a control, or None."""


@dataclass(frozen=True, eq=False)
class IncomingFrame:
    """A frame that came and was not decoded yet: those that are dropped never are.

    Attributes:
        decode: returns its picture, uint8 RGB [height, width, 3]; raises FrameError if it is damaged.
        number: that its sender knows it by.
        came_at: on ``time.monotonic``'s clock, in seconds.
    """

    decode: Callable[[], Image]
    number: int
    came_at: float


@dataclass(frozen=True, eq=False)
class IncomingControl:
    """A control, and who wants to know how it went."""

    control: Message
    reply: Reply


class Inbox:
    """Anyone puts, one thread iterates. Nobody waits to put.

    Attributes:
        dropped: frames that were replaced by a newer one.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._changed = threading.Condition()
        self._controls: deque[IncomingControl] = deque()
        self._frame: IncomingFrame | None = None
        self._closed = False

    def put_frame(self, frame: IncomingFrame) -> None:
        """Replace the frame that waits, if one does."""
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = None if self._closed else frame
            self._changed.notify()

    def put_control(self, control: IncomingControl) -> bool:
        """Add a control; return whether there was room."""
        with self._changed:
            if self._closed or len(self._controls) >= MOST_CONTROLS:
                return False
            self._controls.append(control)
            self._changed.notify()
        return True

    def close(self) -> None:
        """End the iteration; what waits is dropped."""
        with self._changed:
            self._closed, self._frame = True, None
            self._controls.clear()
            self._changed.notify()

    def __iter__(self) -> Iterator[IncomingControl | IncomingFrame]:
        """Take what comes, controls before the frame, until the end."""
        while (item := self._take()) is not None:
            yield item

    def _take(self) -> IncomingControl | IncomingFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._controls or self._frame is not None or self._closed)
            if self._controls:
                return self._controls.popleft()
            frame, self._frame = self._frame, None
            return frame
