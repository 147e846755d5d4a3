"""The live line of a run (frame, FPS, latency, dropped frames), and the table at its end."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.latency_statistics import LatencyStatistics
from live2diff_trt.runtime.source_health import SourceHealth

_RECENT_FRAMES = 250
_SECONDS_BETWEEN_UPDATES = 0.1


class RunProgress:
    """Watches delivered frames go by. The line is over the newest frames, the table over the whole run.

    Attributes:
        frames: how many were delivered.
        dropped: how many the source had and the stream did not take.
        started_at: when the first frame could go in, on ``time.perf_counter``'s clock.
    """

    def __init__(self, total: int | None, console: Console) -> None:
        self.frames = 0
        self.dropped = 0
        self.started_at = time.perf_counter()
        self._ended_at = self.started_at
        self._repeated = 0
        self._latencies = LatencyStatistics()
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT_FRAMES)  # when, and latency in ms
        self._shown_at = 0.0
        self._display = Progress(
            TextColumn("frame {task.completed:.0f}" + (f"/{total}" if total is not None else "")),
            BarColumn(),
            TextColumn("{task.fields[rates]}"),
            console=console,
        )
        self._task = self._display.add_task("frames", total=total, rates="")

    def __enter__(self) -> RunProgress:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.frames:
            self._show()
        self._display.stop()

    def note(self, frame: FinishedFrame, latency_ms: float) -> None:
        """Count a frame that was delivered, ``latency_ms`` after it was captured."""
        self._ended_at = time.perf_counter()
        self.frames += 1
        self._repeated += frame.repeated
        self._latencies.note(latency_ms)
        self._recent.append((self._ended_at, latency_ms))
        if self._ended_at - self._shown_at > _SECONDS_BETWEEN_UPDATES:
            self._show()

    def tabulate(self, spec: StreamSpec, startup_seconds: float, health: SourceHealth) -> Table:
        """Summarise the run, and what of its source was survived."""
        seconds = self._ended_at - self.started_at
        middle, late = (self._latencies.percentile_ms(percent) for percent in (50, 99))
        table = Table(show_header=False, title="run")
        table.add_row("frames", str(self.frames))
        if self._repeated:
            table.add_row("skipped as similar", str(self._repeated))
        if self.dropped:
            table.add_row("dropped", str(self.dropped))
        for trouble, count in health.troubles().items():
            table.add_row(trouble, str(count))
        table.add_row("size", f"{spec.width}x{spec.height}, T = {spec.steps}, {spec.dtype}")
        table.add_row("time to the first frame in", f"{startup_seconds:.2f} s")
        table.add_row("throughput", f"{self.frames / seconds:.1f} FPS")
        table.add_row("latency p50 / p99", f"{middle:.0f} / {late:.0f} ms")
        return table

    def _show(self) -> None:
        self._shown_at = self._ended_at
        self._display.update(self._task, completed=self.frames, rates=self._describe_recent())

    def _describe_recent(self) -> str:
        times, latencies_ms = zip(*self._recent, strict=True)
        span = times[-1] - times[0]
        fps = (len(times) - 1) / span if span > 0 else 0.0
        middle, late = np.percentile(latencies_ms, [50, 99])
        return f"{fps:5.1f} FPS  latency p50 {middle:.0f} p99 {late:.0f} ms  dropped {self.dropped}"
