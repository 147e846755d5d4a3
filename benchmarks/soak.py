"""A long run on the test pattern, in three threads as ``run`` has them: does memory stay flat?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import takewhile
from statistics import median
from typing import Any

import psutil

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.latency_statistics import LatencyStatistics
from live2diff_trt.runtime.paced_run import PacedRun
from live2diff_trt.runtime.pacing import Pace
from live2diff_trt.runtime.sink import Sink
from live2diff_trt.runtime.source import Source
from live2diff_trt.runtime.stream import Stream

_LAST_PART = 0.1
"""Part of a run whose median stands for its end."""
_FEWEST_SAMPLES = 20

OnSample = Callable[["MemorySample"], None]


@dataclass(frozen=True)
class MemorySample:
    """The process at one moment.

    Attributes:
        seconds: since the first frame was finished.
        frames: finished so far.
        resident_mb: memory of the process that is in RAM, in 10⁶ bytes.
    """

    seconds: float
    frames: int
    resident_mb: float


@dataclass(frozen=True)
class Soak:
    """What a long run came to.

    Attributes:
        samples: in order of time.
        dropped: frames that were not taken.
        latency_p50_ms, latency_p99_ms: from capture to delivery.
    """

    samples: tuple[MemorySample, ...]
    dropped: int
    latency_p50_ms: float
    latency_p99_ms: float

    @property
    def growth_mb(self) -> float:
        """How much more memory the process holds at the end, a tenth of the run, than at the first finished frame."""
        last = self.samples[-max(1, int(len(self.samples) * _LAST_PART)) :]
        return median(one.resident_mb for one in last) - self.samples[0].resident_mb

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "seconds": round(self.samples[-1].seconds, 1),
            "frames": self.samples[-1].frames,
            "dropped": self.dropped,
            "growth_mb": round(self.growth_mb, 2),
            "latency_ms": {"p50": round(self.latency_p50_ms, 1), "p99": round(self.latency_p99_ms, 1)},
            "samples": [asdict(one) for one in self.samples],
        }


def soak(
    stream: Stream,
    source: Source,
    sink: Sink,
    pace: Pace,
    *,
    seconds: float,
    interval: float,
    on_sample: OnSample = lambda _: None,
    now: Callable[[], float] = time.perf_counter,
    resident_bytes: Callable[[], int] = lambda: psutil.Process().memory_info().rss,
) -> Soak:
    """Stream a source for a while, and look at the process's memory all the time.

    Args:
        stream: fresh.
        source: that does not end before.
        sink: not entered.
        pace: how fast.
        seconds: how long, from the first finished frame on.
        interval: seconds between two looks, at least.
        on_sample: told of each.
        now: a clock, in seconds.
        resident_bytes: says how much memory the process has in RAM.

    Raises:
        MeasurementError: if there would be too few looks to tell, or the source ended too early.
    """
    if seconds < _FEWEST_SAMPLES * interval:
        raise MeasurementError(
            f"{seconds:g} s with a look every {interval:g} s are too few looks to tell a growth",
            f"Run for {_FEWEST_SAMPLES * interval:g} s or more",
        )
    latencies = LatencyStatistics()
    source.new_frame = stream.empty_frame
    samples: list[MemorySample] = []
    with PacedRun(source, sink, pace, lambda _, latency_ms: latencies.note(latency_ms)) as running:
        finished = _watch(stream.run(running.frames()), samples, interval, now, resident_bytes, on_sample)
        for frame in takewhile(lambda _: not samples or samples[-1].seconds < seconds, finished):
            running.deliver(frame)
        dropped = running.dropped
    if samples[-1].seconds < seconds:
        raise MeasurementError(f"the source ended after {samples[-1].seconds:.0f} s", "Use one that does not end")
    return Soak(tuple(samples), dropped, latencies.percentile_ms(50), latencies.percentile_ms(99))


def _watch(
    finished: Iterator[FinishedFrame],
    samples: list[MemorySample],
    interval: float,
    now: Callable[[], float],
    resident_bytes: Callable[[], int],
    on_sample: OnSample,
) -> Iterator[FinishedFrame]:
    """Yield what is finished, and add a sample whenever one is due."""
    began = None
    for count, frame in enumerate(finished, 1):
        seconds = now()
        began = seconds if began is None else began
        if not samples or seconds - began >= samples[-1].seconds + interval:
            samples.append(MemorySample(round(seconds - began, 3), count, round(resident_bytes() / 1e6, 3)))
            on_sample(samples[-1])
        yield frame
