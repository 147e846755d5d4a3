"""Turns at something that only one thread is to use at a time, in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is fair: who gives it back and asks again comes behind those who wait, where a plain one may not."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn, and hold it while the block runs."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            self._changed.wait_for(lambda: self._line[0] is ticket)
        try:
            yield
        finally:
            with self._changed:
                self._line.popleft()
                self._changed.notify_all()
