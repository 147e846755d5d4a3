"""The clock that frames are held to."""

from __future__ import annotations

import threading
from fractions import Fraction

import pytest

from live2diff_trt.runtime.pacing import SourceClock


class FakeTime(threading.Event):
    """A clock that runs only while somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 100.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.seconds

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.seconds += timeout
        return self.is_set()


def test_frames_are_as_far_apart_as_their_times() -> None:
    time = FakeTime()
    clock = SourceClock(time, time.now)
    went: list[float] = []
    for tenths in (0, 1, 2, 5, 6):
        clock.hold(Fraction(tenths, 10))
        went.append(time.seconds - 100)
    assert went == pytest.approx([0, 0.1, 0.2, 0.5, 0.6])


def test_a_late_frame_goes_at_once_and_delays_nothing() -> None:
    time = FakeTime()
    clock = SourceClock(time, time.now)
    clock.hold(Fraction(3))
    time.seconds += 2.5
    clock.hold(Fraction(4))
    clock.hold(Fraction(5))
    assert time.waits == []
    clock.hold(Fraction(6))
    assert time.waits == pytest.approx([0.5])


def test_a_stop_ends_the_wait() -> None:
    stopping = threading.Event()
    clock = SourceClock(stopping)
    clock.hold(Fraction(0))
    stopping.set()
    clock.hold(Fraction(10**6))
