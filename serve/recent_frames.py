"""Frames of the last seconds: how many a second, and how late they were."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10.0
MOST_FRAMES = 2400


class RecentFrames:
    """Keeps when each frame of a sliding window left, and its latency.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._frames: deque[tuple[float, float]] = deque(maxlen=MOST_FRAMES)

    def note(self, latency_ms: float) -> None:
        """Count a frame that leaves now."""
        self._frames.append((self._now(), latency_ms))

    def frames_per_second(self) -> float:
        """Return the rate over the window, or since its first frame."""
        self._forget()
        if len(self._frames) < 2:
            return 0.0
        elapsed = self._now() - self._frames[0][0]
        return (len(self._frames) - 1) / elapsed if elapsed > 0 else 0.0

    def percentile_ms(self, percent: float) -> float | None:
        """Return the latency that so many percent do not exceed; None where no frame left."""
        self._forget()
        if not self._frames:
            return None
        ordered = sorted(latency for _, latency in self._frames)
        return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]

    def _forget(self) -> None:
        while self._frames and self._frames[0][0] < self._now() - WINDOW_SECONDS:
            self._frames.popleft()
