"""How launches are timed: clocks for the GPU and the wall, samples in blocks that alternate, percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

from live2diff_trt.bundle.errors import Live2DiffError

if TYPE_CHECKING:
    import torch
    from cuda.core import Event, Stream


Name = TypeVar("Name")
"""Of something that is timed."""


class MeasurementError(Live2DiffError):
    """Something was to be measured or recorded in a way that gives no true figure."""


class Clock(Protocol):
    """Takes the time between ``start`` and ``stop``; both may be called any number of times, in turns."""

    def start(self) -> None:
        """Begin a sample."""

    def stop(self) -> None:
        """End the sample. May return before the work is done."""

    def elapsed_ms(self) -> float:
        """Wait for the work that was timed and return its milliseconds."""


class WallClock:
    """Time as the host sees it: right for calls that return when their work is done."""

    def __init__(self) -> None:
        self._began = self._ended = 0.0

    def start(self) -> None:
        """Begin a sample."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """End the sample."""
        self._ended = time.perf_counter()

    def elapsed_ms(self) -> float:
        """Return the sample's milliseconds."""
        return (self._ended - self._began) * 1000


class TorchClock:
    """CUDA events on a torch stream; without one, on the stream that is current at each call."""

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        import torch

        self._stream = stream
        self._began, self._ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def start(self) -> None:
        """Record the first event."""
        self._began.record(self._stream)

    def stop(self) -> None:
        """Record the second event; does not wait."""
        self._ended.record(self._stream)

    def elapsed_ms(self) -> float:
        """Wait for the second event and return the milliseconds between both."""
        self._ended.synchronize()
        return self._began.elapsed_time(self._ended)


class CudaCoreClock:
    """CUDA events on a cuda.core stream."""

    def __init__(self, stream: Stream) -> None:
        from cuda.core import EventOptions

        self._stream = stream
        options = EventOptions(timing_enabled=True)
        self._began: Event = stream.record(options=options)
        self._ended: Event = stream.record(options=options)

    def start(self) -> None:
        """Record the first event."""
        self._stream.record(self._began)

    def stop(self) -> None:
        """Record the second event; does not wait."""
        self._stream.record(self._ended)

    def elapsed_ms(self) -> float:
        """Wait for the second event and return the milliseconds between both."""
        self._ended.sync()
        return float(self._ended - self._began)


def clock_for(device: torch.device) -> Clock:
    """Return the clock of what PyTorch computes on a device: events of the current stream, or the host's time."""
    return TorchClock() if device.type == "cuda" else WallClock()


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        launch: what is timed.
        clock: a clock of the stream that ``launch`` works on.
        between: called before each launch, outside its time, but on the same stream: uploads of the next tick, say.
    """

    launch: Callable[[], object]
    clock: Clock
    between: Callable[[], object] | None = None

    def sample_ms(self) -> float:
        """Launch once and wait; return the milliseconds it took."""
        if self.between is not None:
            self.between()
        self.clock.start()
        self.launch()
        self.clock.stop()
        return self.clock.elapsed_ms()


class Percentiles(NamedTuple):
    """The middle and the late end of a set of samples, in milliseconds."""

    p50_ms: float
    p99_ms: float


def time_gpu(
    launch: Callable[[], object],
    clock: Clock,
    *,
    samples: int = 200,
    warm_up: int = 20,
    between: Callable[[], object] | None = None,
) -> list[float]:
    """Return the milliseconds of each of ``samples`` launches, after ``warm_up`` that do not count."""
    return interleave({"": Case(launch, clock, between)}, samples=samples, block=samples, settle=warm_up)[""]


def interleave(
    cases: Mapping[Name, Case], *, samples: int = 200, block: int = 20, settle: int = 3
) -> dict[Name, list[float]]:
    """Time several cases in turns, a block of launches at a time, so that a drift of the clocks meets all alike.

    Args:
        cases: name → what to time.
        samples: launches of each case that count.
        block: launches of one case in a row.
        settle: launches before each block that do not count: the last case left its own data in the GPU's caches.

    Returns:
        name → milliseconds of each launch that counts, in order.

    Raises:
        MeasurementError: no sample is asked for.
    """
    if samples < 1 or block < 1:
        raise MeasurementError(f"{samples} samples in blocks of {block} measure nothing", "Ask for one or more of each")
    gathered: dict[Name, list[float]] = {name: [] for name in cases}
    for begin in range(0, samples, block):
        for name, case in cases.items():
            for _ in range(settle):
                case.sample_ms()
            gathered[name] += [case.sample_ms() for _ in range(min(block, samples - begin))]
    return gathered


def percentiles(samples_ms: Sequence[float]) -> Percentiles:
    """Return median and 99th percentile, interpolated linearly; raise MeasurementError without finite samples."""
    if not len(samples_ms) or not np.isfinite(samples_ms).all():
        raise MeasurementError("there are no samples, or some are not finite", "Measure before recording")
    middle, late = np.percentile(samples_ms, [50, 99])
    return Percentiles(float(middle), float(late))
