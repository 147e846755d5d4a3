"""What the suite measures unless it is told otherwise: on a GPU the real sizes, without one the tiny network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from live2diff_trt.benchmarks.bench_quality import read_named_options
from live2diff_trt.benchmarks.point import AXES, BASES, Point, choose_points
from live2diff_trt.benchmarks.rows import ROWS, choose_rows, find_gpu
from live2diff_trt.benchmarks.suite import SuiteOptions
from live2diff_trt.bundle.spec import check_size
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.export.presets import PresetName


def choose_base(preset: PresetName | None, size: tuple[int, int] | None) -> tuple[Point, Gpu | None]:
    """Return the base point of a preset, None being the one for this machine, and the machine's GPU."""
    gpu = find_gpu()
    base = BASES[preset or ("tiny" if gpu is None else "sd15")]
    if size is not None:
        check_size(*size)
        base = replace(base, width=size[0], height=size[1])
    return base, gpu


def choose_options(
    work: Path,
    out: Path,
    *,
    preset: PresetName | None,
    size: tuple[int, int] | None,
    axes: tuple[str, ...],
    rows: tuple[str, ...] | None,
    samples: int,
    steady_ticks: int,
    jobs: int,
    gpus: int = 1,
    clip: Path | None = None,
    quality: tuple[str, ...] = (),
) -> tuple[SuiteOptions, Gpu | None]:
    """Return the options of the suite and the machine's GPU; raise MeasurementError for names that are none."""
    base, gpu = choose_base(preset, size)
    wanted = ROWS if rows is None else rows
    choose_points(base, axes)  # names that are none are refused before anything runs
    choose_rows(wanted, gpu)
    in_order = tuple(axis for axis in AXES if axis in axes)
    for one in quality:
        read_named_options(one)
    return SuiteOptions(work, out, base, in_order, wanted, samples, steady_ticks, jobs, gpus, clip, quality), gpu
