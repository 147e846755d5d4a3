"""What can be measured of a point, and the order in which one process does it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from live2diff_trt.benchmarks.bench_controls import time_controls
from live2diff_trt.benchmarks.bench_frame import time_frames, time_latency, time_steadiness
from live2diff_trt.benchmarks.bench_kernels import time_kernels
from live2diff_trt.benchmarks.bench_quality import measure_quality, read_named_options, read_options
from live2diff_trt.benchmarks.bench_stages import time_host, time_stages, time_warm_up
from live2diff_trt.benchmarks.bench_startup import measure_memory, time_startup
from live2diff_trt.benchmarks.bench_unet import time_unet
from live2diff_trt.benchmarks.count_work import count_work
from live2diff_trt.benchmarks.limits import add_limits
from live2diff_trt.benchmarks.opened_rows import OpenedRows, Place
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import (
    ONNX_ROW,
    OVERLAP,
    SPLIT,
    TENSORRT_ROWS,
    WHOLE,
    choose_rows,
    label_of,
    onnxruntime_options,
    tensorrt_options,
)
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline

STEADY_TICKS = 2000
_MOST_WARM_UPS = 20
"""Each takes as long as several ticks."""
_WITH_STAGES = ("torch-compile", SPLIT, WHOLE)
"""The other rows' stages are slower ones of PyTorch's, or the same ones overlapped."""


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        samples: of each figure.
        steady_ticks: ticks in a row, of which the steadiness is told.
        clip, quality: a video, and the options that are compared on it, as ``bench_quality`` reads them.
        style: that the run of every control changes to, if there is one.
    """

    samples: int = 200
    steady_ticks: int = STEADY_TICKS
    clip: Path | None = None
    quality: tuple[str, ...] = ()
    style: Path | None = None


@dataclass(frozen=True)
class Run:
    """What one process measures with.

    Attributes:
        results: gets the entries.
        rows: that can run here.
    """

    results: ResultsFile
    point: Point
    place: Place
    rows: tuple[str, ...]
    extent: Extent


def measure(
    results: ResultsFile,
    point: Point,
    place: Place,
    rows: Sequence[str],
    what: Collection[str],
    extent: Extent,
    on_measured: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure what is named, in the order of MEASURES.

    Args:
        results: gets the entries, and why rows were not run.
        point: what is streamed.
        place: where its bundle and its plans lie.
        rows: names of backends.
        what: names of MEASURES.
        extent: how much.
        on_measured: told each name when what it stands for is complete.
    """
    chosen = choose_rows(rows, place.gpu)
    results.not_run.update(chosen.not_run)
    run = Run(results, point, place, chosen.rows, extent)
    for name in _BEFORE_OPENING:
        if name in what:
            _BEFORE_OPENING[name](run)
            on_measured(name)
    wanted = [name for name in _ON_OPENED if name in what]
    if not wanted:
        return
    with OpenedRows(point, place, chosen.rows).opened() as opened:
        for name in wanted:
            _ON_OPENED[name](run, opened)
            on_measured(name)


def _measure_limits(run: Run) -> None:
    add_limits(run.results, run.place.device, run.point.dtype)


def _measure_startup(run: Run) -> None:
    if run.place.plans is not None:
        time_startup(run.results, run.point, run.place.bundle, run.place.plans, run.place.gpu)


def _measure_memory(run: Run) -> None:
    rows = [row for row in run.rows if row in TENSORRT_ROWS]
    if run.place.plans is not None:
        measure_memory(run.results, run.point, run.place.bundle, run.place.plans, rows, run.place.gpu)


def _measure_quality(run: Run) -> None:
    if run.extent.clip is None:
        run.results.not_run["quality"] = "no clip was named"
        return
    options = dict(read_named_options(one) for one in run.extent.quality)
    bundle, plans = run.place.bundle, run.place.plans
    measure_quality(run.results, run.point, bundle, plans, run.extent.clip, read_options(""), options)


def _measure_controls(run: Run) -> None:
    """Of PyTorch's rows there is nothing to tell: they have no controls."""
    place = run.place
    for row in (ONNX_ROW, *TENSORRT_ROWS):
        if row in run.rows:
            options = onnxruntime_options(place.gpu) if row == ONNX_ROW else tensorrt_options(row, place.plans)
            label = label_of(row, place.gpu)
            ticks, style = run.extent.samples, run.extent.style
            time_controls(run.results, run.point, label, place.bundle, options, ticks=ticks, style=style)


def _measure_unet(run: Run, opened: OpenedRows) -> None:
    time_unet(run.results, run.point, opened.networks, opened.unet_cases(), samples=run.extent.samples)


def _measure_frame(run: Run, opened: OpenedRows) -> None:
    errors = opened.check_pictures(run.results)
    right = {label: pipeline for label, pipeline in opened.pipelines().items() if label in errors}
    notes = count_work(run.point)["tick"].as_notes()
    time_frames(run.results, run.point, right, errors, notes, samples=run.extent.samples)


def _measure_latency(run: Run, opened: OpenedRows) -> None:
    time_latency(run.results, run.point, opened.pipelines(), samples=run.extent.samples)


def _measure_steadiness(run: Run, opened: OpenedRows) -> None:
    row = next((row for row in (OVERLAP, SPLIT) if row in run.rows), None)
    if row is not None:
        label = label_of(row, run.place.gpu)
        pipeline = opened.pipelines()[label]
        time_steadiness(run.results, run.point, label, pipeline, ticks=run.extent.steady_ticks)


def _measure_stages(run: Run, opened: OpenedRows) -> None:
    on_cpu = run.place.gpu is None
    pipelines = {
        label_of(row, run.place.gpu): pipeline
        for row, pipeline in zip(run.rows, opened.pipelines().values(), strict=True)
        if on_cpu or row in _WITH_STAGES
    }
    work, samples = count_work(run.point), run.extent.samples
    time_stages(run.results, run.point, pipelines, work, samples=samples)
    for label, pipeline in opened.pipelines().items():
        if isinstance(pipeline, CudaPipeline):
            time_host(run.results, run.point, label, pipeline, samples=samples)
    for label, pipeline in pipelines.items():
        if isinstance(pipeline, CudaPipeline) and label == label_of(SPLIT, run.place.gpu):
            time_warm_up(run.results, run.point, label, pipeline, samples=min(samples, _MOST_WARM_UPS))


def _measure_kernels(run: Run, opened: OpenedRows) -> None:
    if SPLIT not in run.rows:
        run.results.not_run["kernels"] = f"they are those of {SPLIT}, which was not run"
        return
    label = label_of(SPLIT, run.place.gpu)
    pipeline = opened.pipelines()[label]
    if isinstance(pipeline, CudaPipeline):
        time_kernels(run.results, run.point, label, pipeline, samples=run.extent.samples)


_BEFORE_OPENING: Mapping[str, Callable[[Run], None]] = {
    "startup": _measure_startup,
    "limits": _measure_limits,
    "memory": _measure_memory,
    "quality": _measure_quality,
    "controls": _measure_controls,
}
"""While nothing of ours is on the GPU yet."""
_ON_OPENED: Mapping[str, Callable[[Run, OpenedRows], None]] = {
    "unet": _measure_unet,
    "frame": _measure_frame,
    "latency": _measure_latency,
    "steadiness": _measure_steadiness,
    "stages": _measure_stages,
    "kernels": _measure_kernels,
}
MEASURES = (*_BEFORE_OPENING, *_ON_OPENED)
