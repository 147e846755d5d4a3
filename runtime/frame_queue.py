"""A bounded queue between the thread that makes frames and the thread that takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class QueueStopped(Exception):  # noqa: N818 - no error: it tells a thread that its work is not wanted any more
    """The queue was stopped before all was put that was to come."""


class FrameQueue(Generic[Item]):
    """Holds a few frames. One thread puts, one iterates; anyone may end it.

    Args:
        size: how many it holds, at least 1.
        newest_wins: who puts into a full queue pushes the oldest out, where it would wait otherwise.

    Attributes:
        dropped: how many were pushed out.
    """

    def __init__(self, size: int, *, newest_wins: bool = False) -> None:
        self.dropped = 0
        self._size, self._newest_wins = size, newest_wins
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._finished = self._stopped = False

    def put(self, item: Item) -> bool:
        """Add an item, waiting for room if need be; return whether it was added: not after the end."""
        with self._changed:
            if self._newest_wins and len(self._items) == self._size and not self._has_ended():
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._items) < self._size or self._has_ended())
            if self._has_ended():
                return False
            self._items.append(item)
            self._changed.notify_all()
        return True

    def finish(self) -> None:
        """End the queue: what is in it is all there will be."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Break the queue off: who takes gets what is in it, then QueueStopped. After ``finish`` it does nothing."""
        with self._changed:
            self._stopped = not self._finished
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Take items, waiting for each, until the end; raise QueueStopped if that was ``stop``."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._has_ended())
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # while the next one is waited for, its memory may be used again
        if self._stopped:
            raise QueueStopped

    def _has_ended(self) -> bool:
        return self._finished or self._stopped
