"""What a user waits for before the first frame, and what it takes of memory: export, build, first opening, restart.

Each is a process of its own, its start and its imports included, by the host's clock. Run it while nothing else runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from live2diff_trt.benchmarks.open_fresh import open_fresh
from live2diff_trt.benchmarks.our_commands import build_command, export_command, run_timed
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import ONNX_ROW, SPLIT, Label, label_of
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.build import BuildOptions, plan_key
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.store import PlanStore


def time_startup(results: ResultsFile, point: Point, bundle: Path, plans: Path, gpu: Gpu | None) -> None:
    """Add ``startup/…``; afterwards bundle and plans are there.

    Args:
        results: gets the entries.
        point: what is exported.
        bundle: where to; what is there is removed first, and those plans too that are built.
        plans: root of the plan store.
        gpu: that the plans are built for; None: ONNX Runtime opens the bundle.
    """
    shutil.rmtree(bundle, ignore_errors=True)
    spent = run_timed(export_command(point, bundle))
    written = sum(path.stat().st_size for path in bundle.iterdir())
    export = Label("export")
    results.add_samples(
        "startup/export",
        *export,
        point,
        [spent.seconds * 1000],
        peak_resident_bytes=spent.peak_resident_bytes,
        bytes=written,
    )
    row = ONNX_ROW if gpu is None else SPLIT
    label = label_of(row, gpu)
    if gpu is not None:
        shutil.rmtree(_plans_folder(point, bundle, plans, gpu), ignore_errors=True)
        spent = run_timed(build_command(point, bundle, plans, SPLIT, opened=False))
        results.add_samples(
            "startup/build", *label, point, [spent.seconds * 1000], peak_resident_bytes=spent.peak_resident_bytes
        )
        opened = open_fresh(bundle, plans, row, point.step_list)
        results.add_samples("startup/first_open", *label, point, [opened["seconds"] * 1000])
    opened = open_fresh(bundle, plans, row, point.step_list)
    results.add_samples("startup/restart", *label, point, [opened["seconds"] * 1000])


def _plans_folder(point: Point, bundle: Path, plans: Path, gpu: Gpu) -> Path:
    flavour, _ = choose_flavour("auto", gpu.compute_capability)
    options = BuildOptions(gpu.compute_capability, gpu.compute_capability, "split", point.steps)
    return PlanStore(plans).folder(plan_key(Bundle.open(bundle, ()), flavour, options))


def measure_memory(
    results: ResultsFile, point: Point, bundle: Path, plans: Path, rows: Sequence[str], gpu: Gpu | None
) -> None:
    """Add ``memory/session`` of every row of TensorRT: what was estimated, and by how much free memory fell."""
    for row in rows:
        memory = open_fresh(bundle, plans, row, point.step_list)
        del memory["seconds"]
        results.add_figure("memory/session", *label_of(row, gpu), point, **memory)
