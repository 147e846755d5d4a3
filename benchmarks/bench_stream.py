"""How fast a bundle streams: ``python -m live2diff_trt.benchmarks.bench_stream BUNDLE --record result.json``.

What is timed: ``stream(frame)`` for frames that are decoded already, depth and both autoencoders included, uint8 in and
uint8 out. Decoding and encoding of the video are not in it. The first frames, warm-up among them, are left out.
"""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from live2diff_trt.benchmarks.record import write_record
from live2diff_trt.cli.choices import ProviderChoice
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.stream import Stream

_SETTLING_FRAMES = 24


def bench_stream(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    record: Annotated[Path, typer.Option(help="JSON file to write.")],
    frames: Annotated[int, typer.Option(min=2, help="How many frames to time.")] = 300,
    threads: Annotated[int, typer.Option(min=0, help="Threads of ONNX Runtime; 0: one per core.")] = 0,
    provider: Annotated[ProviderChoice, typer.Option(help="Where ONNX Runtime computes.")] = ProviderChoice.cpu,
) -> None:
    """Time every frame of a moving test pattern, 640x360, through a bundle."""
    options = OnnxRuntimeOptions(provider=provider.value, threads=threads)
    started = time.perf_counter()
    with Stream.open(bundle, prompt="a watercolour fox", options=options) as stream:
        opened = time.perf_counter()
        durations_ms = _time_frames(stream, frames)
        spec = stream.spec
    middle, late = np.percentile(durations_ms, [50, 99])
    figures = {
        "stream": {"size": f"{spec.width}x{spec.height}", "steps": spec.steps, "dtype": spec.dtype},
        "onnxruntime": {"provider": provider.value, "threads": threads},
        "open_seconds": opened - started,
        "frame_ms": {"p50": middle, "p99": late, "mean": float(np.mean(durations_ms))},
        "frames_per_second": 1000 / float(np.mean(durations_ms)),
        "samples_ms": [round(duration, 3) for duration in durations_ms],
    }
    write_record(record, figures)
    typer.echo(f"{figures['frames_per_second']:.1f} FPS, p50 {middle:.1f} ms, p99 {late:.1f} ms; {record}")


def _time_frames(stream: Stream, frames: int) -> list[float]:
    durations_ms = []
    for frame in islice(TestPatternSource(), _SETTLING_FRAMES + frames):
        began = time.perf_counter()
        stream(frame.image, frame.time)
        durations_ms.append((time.perf_counter() - began) * 1000)
    return durations_ms[_SETTLING_FRAMES:]


if __name__ == "__main__":
    typer.run(bench_stream)
