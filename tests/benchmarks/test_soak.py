"""A long run watches memory, and says how much more there is at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from live2diff_trt import Stream
from live2diff_trt.benchmarks.soak import MemorySample, Soak, soak
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.cli.main import app
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.sink import NullSink
from live2diff_trt.runtime.source import TestPatternSource


@pytest.fixture
def stream(tiny_bundle: Path) -> Iterator[Stream]:
    with Stream.open(tiny_bundle, options=OnnxRuntimeOptions(threads=1)) as opened:
        yield opened


def watch(
    stream: Stream, resident_bytes: Callable[[], int], *, seconds: float = 40, frames: int | None = None
) -> tuple[Soak, NullSink]:
    """Run on a clock that goes on by a second with each finished frame."""
    sink = NullSink()
    source = TestPatternSource(64, 64, frame_count=frames)
    clock = count()
    found = soak(
        stream, source, sink, "all", seconds=seconds, interval=2, now=lambda: next(clock), resident_bytes=resident_bytes
    )
    return found, sink


def test_memory_that_stays_is_no_growth(stream: Stream) -> None:
    found, sink = watch(stream, lambda: 300_000_000)
    assert found.growth_mb == 0
    assert [one.seconds for one in found.samples] == list(range(0, 41, 2))
    assert [one.frames for one in found.samples] == list(range(1, 42, 2))
    assert sink.frames == 40  # the one that shows that time is up is not delivered
    assert found.dropped == 0
    assert 0 < found.latency_p50_ms <= found.latency_p99_ms


def test_a_leak_is_found(stream: Stream) -> None:
    leaking = count(300_000_000, 1_000_000)
    found, _ = watch(stream, lambda: next(leaking))
    assert found.growth_mb == pytest.approx(19.5)  # the last two of 21 looks, a megabyte more at each


def test_a_moment_at_the_end_does_not_decide() -> None:
    resident = [300.0] * 99 + [900.0]
    samples = tuple(MemorySample(float(second), second, mb) for second, mb in enumerate(resident))
    assert Soak(samples, 0, 1.0, 2.0).growth_mb == 0


def test_a_source_that_ends_too_early_tells_nothing(stream: Stream) -> None:
    with pytest.raises(MeasurementError, match="the source ended after"):
        watch(stream, lambda: 1, frames=20)


def test_too_few_looks_are_refused_at_once(stream: Stream) -> None:
    with pytest.raises(MeasurementError, match="too few looks") as caught:
        watch(stream, lambda: 1, seconds=39)
    assert "40 s or more" in caught.value.remedy


def test_the_command_records_and_draws(tiny_bundle: Path, tmp_path: Path) -> None:
    record, plot = tmp_path / "soak.json", tmp_path / "plots" / "soak.png"
    options = ["--minutes", "0.02", "--backend", "onnxruntime", "--threads", "1"]
    result = CliRunner().invoke(
        app, ["bench", "soak", str(tiny_bundle), *options, "--record", str(record), "--plot", str(plot)]
    )
    assert result.exit_code == 0, result.exception
    written = json.loads(record.read_text())
    assert written["stream"] == {"size": "64x64", "steps": 2, "dtype": "float32"}
    assert written["soak"]["seconds"] >= 1.2
    assert written["soak"]["frames"] == written["soak"]["samples"][-1]["frames"]
    assert f"{written['soak']['growth_mb']:+.1f} MB" in result.stdout
    assert imread(plot).shape[:2] == (320, 800)


def test_a_growth_beyond_the_limit_fails(tiny_bundle: Path) -> None:
    options = ["--minutes", "0.02", "--backend", "onnxruntime", "--threads", "1", "--limit-mb", "-1000"]
    assert CliRunner().invoke(app, ["bench", "soak", str(tiny_bundle), *options]).exit_code == 1
