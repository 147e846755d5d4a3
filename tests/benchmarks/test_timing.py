"""Samples are what the clocks say, backends take turns, and percentiles are those of the definition."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from live2diff_trt.benchmarks.timing import (
    Case,
    Clock,
    CudaCoreClock,
    MeasurementError,
    TorchClock,
    WallClock,
    interleave,
    percentiles,
    time_gpu,
)


class CountingClock:
    """Every sample is a millisecond longer than the one before."""

    def __init__(self, calls: list[str] | None = None) -> None:
        self.calls = [] if calls is None else calls
        self.samples = 0

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def elapsed_ms(self) -> float:
        self.calls.append("elapsed")
        self.samples += 1
        return float(self.samples)


def noting(calls: list[str], name: str) -> Callable[[], None]:
    return lambda: calls.append(name)


def test_warm_up_does_not_count() -> None:
    clock = CountingClock()
    assert time_gpu(lambda: None, clock, samples=3, warm_up=2) == [3.0, 4.0, 5.0]


def test_what_comes_between_is_not_timed() -> None:
    calls: list[str] = []
    time_gpu(noting(calls, "launch"), CountingClock(calls), samples=2, warm_up=0, between=noting(calls, "between"))
    assert calls == ["between", "start", "launch", "stop", "elapsed"] * 2


def test_cases_take_turns_in_blocks() -> None:
    calls: list[str] = []
    cases = {name: Case(noting(calls, name), CountingClock()) for name in "ab"}
    gathered = interleave(cases, samples=5, block=2, settle=1)
    assert "".join(calls) == "aaabbb" + "aaabbb" + "aabb"
    assert gathered == {"a": [2.0, 3.0, 5.0, 6.0, 8.0], "b": [2.0, 3.0, 5.0, 6.0, 8.0]}


@pytest.mark.parametrize(("samples", "block"), [(0, 1), (1, 0)])
def test_measuring_nothing_is_refused(samples: int, block: int) -> None:
    with pytest.raises(MeasurementError, match="measure nothing"):
        interleave({"a": Case(lambda: None, CountingClock())}, samples=samples, block=block)


def test_the_wall_clock_is_in_milliseconds() -> None:
    (sample_ms,) = time_gpu(lambda: time.sleep(0.02), WallClock(), samples=1, warm_up=0)
    assert 20 <= sample_ms < 2000


def test_percentiles_interpolate() -> None:
    assert percentiles([4.0, 1.0, 3.0, 2.0]) == pytest.approx((2.5, 3.97))
    assert percentiles([7.0]) == (7.0, 7.0)


@pytest.mark.parametrize("samples_ms", [[], [1.0, float("nan")]])
def test_percentiles_want_finite_samples(samples_ms: list[float]) -> None:
    with pytest.raises(MeasurementError):
        percentiles(samples_ms)


@pytest.mark.gpu
def test_both_gpu_clocks_agree_on_the_same_work() -> None:
    import torch
    from cuda.core import Device, Stream

    Device(0).set_current()
    stream = torch.cuda.Stream()
    work = torch.randn(4096, 4096, device="cuda")
    product = torch.empty_like(work)
    torch.cuda.synchronize()

    def launch() -> None:
        with torch.cuda.stream(stream):
            torch.mm(work, work, out=product)

    clocks: dict[str, Clock] = {
        "torch": TorchClock(stream),
        "core": CudaCoreClock(Stream.from_handle(stream.cuda_stream)),
    }
    cases = {name: Case(launch, clock) for name, clock in clocks.items()}
    middles = {name: percentiles(samples).p50_ms for name, samples in interleave(cases, samples=40).items()}
    assert middles["torch"] > 0.1
    assert middles["core"] == pytest.approx(middles["torch"], rel=0.1)
