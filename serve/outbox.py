"""What goes to a visitor over the WebSocket: all messages, of statuses and pictures the newest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from live2diff_trt.serve.errors import SessionError
from live2diff_trt.serve.messages import Message, Status
from live2diff_trt.serve.visitor_stream import OutgoingFrame

MOST_MESSAGES = 256


class Outbox:
    """For one event loop's thread. Pictures wait until the visitor has said that earlier ones came.

    Args:
        frames_unseen: how many pictures may be on their way.

    Attributes:
        dropped: pictures that were replaced by a newer one.
    """

    def __init__(self, frames_unseen: int) -> None:
        self.dropped = 0
        self._frames_unseen = frames_unseen
        self._messages: deque[Message] = deque()
        self._status: Status | None = None
        self._frame: OutgoingFrame | None = None
        self._unseen: deque[int] = deque()
        self._changed = asyncio.Event()

    def put(self, message: Message) -> None:
        """Add a message.

        Raises:
            SessionError: if too many wait: the visitor asks and does not read.
        """
        if isinstance(message, Status):
            self._status = message
        elif len(self._messages) >= MOST_MESSAGES:
            raise SessionError(f"{len(self._messages)} answers wait to be read", "Read what the server sends")
        else:
            self._messages.append(message)
        self._changed.set()

    def put_frame(self, frame: OutgoingFrame) -> None:
        """Replace the picture that waits, if one does."""
        self.dropped += self._frame is not None
        self._frame = frame
        self._changed.set()

    def note_shown(self, number: int) -> None:
        """Take note that a picture came, and with it those before it. One that was not sent means nothing."""
        if number in self._unseen:
            while self._unseen.popleft() != number:
                pass
            self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Message | OutgoingFrame]:
        """Take what is to be sent, messages first. It never ends."""
        while True:
            item = self._next()
            if item is None:
                self._changed.clear()
                await self._changed.wait()
            else:
                yield item

    def _next(self) -> Message | OutgoingFrame | None:
        if self._messages:
            return self._messages.popleft()
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._frame is not None and len(self._unseen) < self._frames_unseen:
            frame, self._frame = self._frame, None
            self._unseen.append(frame.number)
            return frame
        return None
