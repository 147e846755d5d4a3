"""Seats and a line: who streams, who waits, and who is next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from live2diff_trt.runtime.errors import DeviceMemoryError
from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.serve.errors import LineFullError

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.9
"""Of the free memory: what else runs on the machine needs some."""


def count_seats(engine: SharedEngine, most: int) -> int:
    """Return for how many streams there is memory, ``most`` at most.

    Raises:
        DeviceMemoryError: if there is not enough for one.
    """
    free = engine.free_bytes()
    seats = min(most, int(free * USABLE_SHARE) // max(1, engine.stream_bytes))
    if seats < 1:
        raise DeviceMemoryError(
            f"a session takes {engine.stream_bytes / 1e9:.2f} GB of memory, {free / 1e9:.2f} GB are free",
            "Use fewer steps (--max-steps), export a smaller --size, or end what else runs there",
        )
    if seats < most:
        logger.warning("there is memory for %d sessions at once, not for %d", seats, most)
    return seats


@dataclass(eq=False)
class _Waiting:
    tell_place: Callable[[int], None]
    is_seated: asyncio.Event = field(default_factory=asyncio.Event)


class Lobby:
    """Gives seats in the order in which visitors came. For one event loop's thread.

    Args:
        seats: how many there are.
        max_waiting: how long the line may become.

    Attributes:
        seats: how many there are.
        taken: how many of them are taken.
    """

    def __init__(self, seats: int, max_waiting: int) -> None:
        self.seats, self.taken = seats, 0
        self._max_waiting = max_waiting
        self._line: list[_Waiting] = []

    @property
    def waiting(self) -> int:
        """How many are in the line."""
        return len(self._line)

    @asynccontextmanager
    async def seat(self, tell_place: Callable[[int], None]) -> AsyncIterator[None]:
        """Wait for a seat, and hold it while the block runs. Who is cancelled while waiting leaves the line.

        Args:
            tell_place: told of each new place in the line: 1 is next, 0 has a seat.

        Raises:
            LineFullError: if there is neither a seat nor a place in the line.
        """
        if self.taken >= self.seats and len(self._line) >= self._max_waiting:
            raise LineFullError(
                f"all {self.seats} seats are taken, and {len(self._line)} wait already", "Come back later"
            )
        visitor = _Waiting(tell_place)
        self._line.append(visitor)
        self._move_on()
        try:
            await visitor.is_seated.wait()
            yield
        finally:
            self._leave(visitor)

    def _leave(self, visitor: _Waiting) -> None:
        if visitor.is_seated.is_set():
            self.taken -= 1
        else:
            self._line.remove(visitor)
        self._move_on()

    def _move_on(self) -> None:
        while self._line and self.taken < self.seats:
            self.taken += 1
            seated = self._line.pop(0)
            seated.is_seated.set()
            seated.tell_place(0)
        for place, visitor in enumerate(self._line, start=1):
            visitor.tell_place(place)
