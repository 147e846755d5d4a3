"""Everything measured on one GPU in one run: ``live2diff-trt bench gpu BUNDLE --plans FOLDER``.

The bundle is one that ``export --preset sd15 --random-weights --seed 0`` wrote: PyTorch's rows make the same network
from the same seed. Plans are built if they are not there. Writes ``benchmarks/results/<gpu>-<date>.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from live2diff_trt.benchmarks.gpu_limits import add_gpu_limits
from live2diff_trt.benchmarks.gpu_stream import (
    BACKEND,
    time_attention,
    time_frames,
    time_host,
    time_stages,
    time_warm_up,
)
from live2diff_trt.benchmarks.gpu_unet import time_unet_ticks
from live2diff_trt.benchmarks.results_file import RESULTS_FOLDER, ResultsFile
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.build import BuildOptions, build_plans
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import PlanStore
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.export.presets import PRESETS, Preset, PresetName
from live2diff_trt.runtime.cuda_session import open_cuda_pipeline, require_gpu

# Opens a stream in a process of its own, as a user's restart does, and looks at the GPU's memory from before its
# context was made.
_OPEN_FRESH = """
import json, sys, time
from pathlib import Path
from cuda.core import Device
bundle, plans, form = sys.argv[1:]
free_before = Device(0).to_system_device().memory_info.free
began = time.perf_counter()
from live2diff_trt import Stream
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
options = TensorRTOptions(form=form, plans=Path(plans))
stream = Stream.open(bundle, options=options)
seconds = time.perf_counter() - began
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.runtime.cuda_session import estimate_for
estimate = estimate_for(Bundle.open(bundle, ()), stream.spec, options)
memory = stream._pipeline.parts.memory
print(json.dumps({
    "seconds": seconds,
    "fell_bytes": free_before - Device(0).to_system_device().memory_info.free,
    "estimated_bytes": estimate.total,
    "estimated_allocated_bytes": estimate.allocated,
    "allocated_bytes": sum(memory.allocated.values()) + estimate.parts["weights"],
    "parts": {**estimate.parts, "driver and kernels": estimate.overhead},
}))
"""


def bench_gpu(
    bundle: Path,
    plans: Path,
    *,
    preset: PresetName = "sd15",
    seed: int = 0,
    forms: Sequence[Form] = ("split", "whole"),
    samples: int = 200,
    torch_rows: bool = True,
    out: Path = RESULTS_FOLDER,
) -> Path:
    """Measure PyTorch and TensorRT side by side, then whole frames, stages, kernels, start-up and memory.

    Args:
        bundle: its folder.
        plans: root of the plan store.
        preset: what the bundle was exported from. seed: of its random weights.
        forms: to measure, the best first.
        samples: of each figure.
        torch_rows: whether PyTorch is measured beside.
        out: folder of the results.

    Returns:
        The results' file.
    """
    import torch

    results = ResultsFile()
    for form in forms:
        _start(results, bundle, plans, form)
    add_gpu_limits(results, torch.device("cuda", 0))
    opened = Bundle.open(bundle, ())
    pipelines = {
        form: open_cuda_pipeline(opened, opened.spec, TensorRTOptions(form=form, plans=plans), seed=0) for form in forms
    }
    try:
        if torch_rows:
            sessions = {str(form): pipeline.parts.unet for form, pipeline in pipelines.items()}
            time_unet_ticks(results, _preset_of(opened, preset), seed, sessions, samples=samples)
            results.write(out)
        for form, pipeline in pipelines.items():
            pipeline.set_prompt("a watercolour painting")
            time_stages(results, pipeline, form, samples=samples)
            time_frames(results, pipeline, form, samples=samples)
            time_host(results, pipeline, form, samples=samples)
            time_warm_up(results, pipeline, form, samples=min(samples, 20))
            time_attention(results, pipeline, samples=samples)
            results.write(out)
    finally:
        for pipeline in pipelines.values():
            pipeline.close()
    _show(results)
    return results.write(out)


def _preset_of(bundle: Bundle, name: PresetName) -> Preset:
    spec = bundle.spec
    return replace(PRESETS[name], width=spec.width, height=spec.height, dtype=spec.dtype, step_list=spec.step_list)


def _show(results: ResultsFile) -> None:
    for entry in results.entries:
        time_ms = "" if entry.p50_ms is None else f"{entry.p50_ms:.3f} ms"
        error = "" if entry.checked_error is None else f"error {entry.checked_error:.1e}"
        notes = json.dumps(entry.notes)[:160]
        typer.echo(f"{entry.name:42} {entry.backend:22} {entry.form or '':6} {time_ms:>14} {error} {notes}")


def _start(results: ResultsFile, bundle: Path, plans: Path, form: Form) -> None:
    """Measure what a user waits for: the build and the first opening, unless both were done before; any restart."""
    gpu = require_gpu(0)
    flavour, _ = choose_flavour("auto", gpu.compute_capability)
    opened = Bundle.open(bundle)
    known = [key.form for key in PlanStore(plans).find(opened.digest)]
    began = time.perf_counter()
    options = BuildOptions(gpu.compute_capability, gpu.compute_capability, form)
    stored = build_plans(opened, flavour, PlanStore(plans), options)
    seconds = time.perf_counter() - began
    answer: dict[str, Any] = {}
    for name in ("restart",) if form in known else ("first_open", "restart"):
        command = [sys.executable, "-c", _OPEN_FRESH, str(bundle), str(plans), form]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        results.add_samples(f"startup/{name}", BACKEND, form, opened.spec, [answer.pop("seconds") * 1000])
    if form not in known:
        results.add_samples("startup/build", BACKEND, form, opened.spec, [seconds * 1000], bytes=stored.bytes)
    results.add_figure("memory/session", BACKEND, form, opened.spec, **answer)
