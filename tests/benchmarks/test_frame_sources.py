"""Pictures are random and come when they are due."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from live2diff_trt.benchmarks import frame_sources
from live2diff_trt.benchmarks.frame_sources import PictureSource, draw_pictures


def test_pictures_are_random_and_the_same_every_time() -> None:
    one, other = draw_pictures(32, 16, 2), draw_pictures(32, 16, 2)
    assert [picture.shape for picture in one] == [(16, 32, 3)] * 2
    assert not np.array_equal(one[0], one[1])
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_a_source_never_ends_and_remembers_when_it_gave_what() -> None:
    source = PictureSource(draw_pictures(16, 16, 2))
    taken = list(islice(source, 300))
    assert taken[0] is taken[2]
    times = [source.given_at(index) for index in range(301)]
    assert times[300] is None
    assert times[0] is None  # long ago
    known = [moment for moment in times if moment is not None]
    assert known == sorted(known)


class Clock:
    """Stands for the module ``time``: nobody else takes time from the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        """Return the time; looking at it takes a little."""
        self.now += 1e-5
        return self.now

    def sleep(self, seconds: float) -> None:
        """Sleep, and wake up a little late."""
        self.now += seconds + 1e-3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(frame_sources, "time", clock)
    return clock


def test_a_slow_source_waits_between_pictures(clock: Clock) -> None:
    source = PictureSource(draw_pictures(16, 16, 1), interval_ms=10.0)
    pictures = iter(source)
    for _ in range(4):
        next(pictures)
    given = np.array([source.given_at(index) for index in range(4)], np.float64)
    np.testing.assert_allclose(np.diff(given), 0.01, atol=1e-4)


def test_after_a_pause_not_all_comes_at_once(clock: Clock) -> None:
    source = PictureSource(draw_pictures(16, 16, 1), interval_ms=10.0)
    pictures = iter(source)
    next(pictures)
    clock.sleep(0.05)
    for _ in range(3):
        next(pictures)
    given = np.array([source.given_at(index) for index in range(4)], np.float64)
    np.testing.assert_allclose(np.diff(given), [0.051, 0.01, 0.01], atol=1e-4)
