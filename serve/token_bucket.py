"""A bound on how often something may happen."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Lets ``per_second`` things happen each second, and ``burst`` at once.

    Args:
        per_second: how many come back each second.
        burst: how many may happen at once.
        now: a clock, in seconds.
    """

    def __init__(self, per_second: float, burst: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._now = per_second, burst, now
        self._left, self._seen_at = burst, now()

    def take(self) -> bool:
        """Return whether one more may happen now, and count it if so."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._seen_at) * self._per_second)
        self._seen_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
