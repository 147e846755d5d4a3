"""The live line of a run (frame, FPS, latency), and the table at its end."""

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

_RECENT_FRAMES = 30


class RunProgress:
    """Watches finished frames go by. Rates are over the newest frames, the table's over the whole run.

    Attributes:
        frames: how many were finished.
        started_at: when the first frame could go in, on ``time.perf_counter``'s clock.
    """

    def __init__(self, total: int | None, console: Console) -> None:
        self.frames = 0
        self.started_at = time.perf_counter()
        self._ended_at = self.started_at
        self._repeated = 0
        self._latencies_ms: list[float] = []
        self._recent: deque[float] = deque(maxlen=_RECENT_FRAMES)
        self._display = Progress(
            TextColumn("frame {task.completed:.0f}" + (f"/{total}" if total is not None else "")),
            BarColumn(),
            TextColumn("{task.fields[fps]:5.1f} FPS  latency {task.fields[latency_ms]:5.0f} ms"),
            console=console,
        )
        self._task = self._display.add_task("frames", total=total, fps=0.0, latency_ms=0.0)

    def __enter__(self) -> RunProgress:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def note(self, frame: FinishedFrame) -> None:
        """Count a frame that was delivered."""
        self._ended_at = time.perf_counter()
        self.frames += 1
        self._repeated += frame.repeated
        self._latencies_ms.append(frame.latency_ms)
        self._recent.append(self._ended_at)
        span = self._recent[-1] - self._recent[0]
        fps = (len(self._recent) - 1) / span if span > 0 else 0.0
        self._display.update(self._task, advance=1, fps=fps, latency_ms=frame.latency_ms)

    def tabulate(self, spec: StreamSpec, startup_seconds: float) -> Table:
        """Summarise the run."""
        seconds = self._ended_at - self.started_at
        middle, late = np.percentile(self._latencies_ms, [50, 99])
        table = Table(show_header=False, title="run")
        table.add_row("frames", str(self.frames))
        if self._repeated:
            table.add_row("skipped as similar", str(self._repeated))
        table.add_row("size", f"{spec.width}x{spec.height}, T = {spec.steps}, {spec.dtype}")
        table.add_row("time to the first frame in", f"{startup_seconds:.2f} s")
        table.add_row("throughput", f"{self.frames / seconds:.1f} FPS")
        table.add_row("latency p50 / p99", f"{middle:.0f} / {late:.0f} ms")
        return table
