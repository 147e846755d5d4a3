"""Percentiles of latencies in a fixed amount of memory, however long a run goes on."""

from __future__ import annotations

import math

import numpy as np

SHORTEST_MS = 0.01
STEP = 1.01
BINS = 2400
"""Up to 0.01 ms · 1.01^2400, which is 65 hours."""


class LatencyStatistics:
    """Counts latencies in bins that grow by 1 % each, so a percentile is right to half of that.

    Attributes:
        count: how many were noted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._bins = np.zeros(BINS, np.int64)

    def note(self, latency_ms: float) -> None:
        """Count one, in ms."""
        place = math.log(max(latency_ms, SHORTEST_MS) / SHORTEST_MS, STEP)
        self._bins[min(int(place), BINS - 1)] += 1
        self.count += 1

    def percentile_ms(self, percent: float) -> float:
        """Return the latency, in ms, that so many percent do not exceed; NaN if none was noted."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        place = int(np.searchsorted(np.cumsum(self._bins), rank))
        return float(SHORTEST_MS * STEP ** (place + 0.5))
