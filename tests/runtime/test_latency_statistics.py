"""Percentiles that take a fixed amount of memory are right to 1 %."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.runtime.latency_statistics import LatencyStatistics


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles_are_those_of_all_latencies(latencies_ms: list[float], percent: int) -> None:
    statistics = LatencyStatistics()
    for latency_ms in latencies_ms:
        statistics.note(latency_ms)
    exact = np.percentile(latencies_ms, percent, method="inverted_cdf")
    assert statistics.percentile_ms(percent) == pytest.approx(exact, rel=0.01)
    assert statistics.count == len(latencies_ms)


def test_what_is_out_of_range_counts_at_its_end() -> None:
    statistics = LatencyStatistics()
    assert math.isnan(statistics.percentile_ms(50))
    statistics.note(0)
    assert statistics.percentile_ms(50) == pytest.approx(0.01, rel=0.01)
    statistics.note(1e12)
    assert statistics.percentile_ms(99) > 1e8
