"""How fast frames go: the paces, and the clock that a source without one of its own is held to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

Pace = Literal["all", "live", "source"]
"""``all``: every frame, as fast as possible. ``live``: the newest frame wins, late ones are dropped. ``source``: every
frame, none before it is due."""


class SourceClock:
    """Holds frames back until they are due: as far apart as their presentation times, counted from the first one.

    What comes late goes on at once, and what follows it is due no later for that.

    Args:
        now: a clock, in seconds.
        stopping: ends a wait at once when it is set.
    """

    def __init__(self, stopping: threading.Event, now: Callable[[], float] = time.perf_counter) -> None:
        self._stopping, self._now = stopping, now
        self._started_at: float | None = None

    def hold(self, time_of_frame: Fraction) -> None:
        """Wait until a frame is due that is shown at ``time_of_frame``, in seconds."""
        if self._started_at is None:
            self._started_at = self._now() - float(time_of_frame)
        early = self._started_at + float(time_of_frame) - self._now()
        if early > 0:
            self._stopping.wait(early)
