"""Chooses who runs a bundle, and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.cli.choices import BackendChoice
from live2diff_trt.cli.console import messages
from live2diff_trt.engine.errors import BackendError, GpuError, PlanStoreError
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.gpu import detect_gpu
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.store import PlanStore
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.backend import BackendOptions


def choose_backend(
    choice: BackendChoice,
    bundle: Path,
    on_cpu: OnnxRuntimeOptions,
    on_gpu: TensorRTOptions,
    *,
    restyled: bool = False,
) -> BackendOptions:
    """Return the options of the backend that was named; for ``auto``, TensorRT's where its plans are, and say which.

    A backend that was named is never replaced: opening it says what it lacks. For a style (``restyled``), refittable
    plans go before others.
    """
    if choice is BackendChoice.onnxruntime or on_cpu != OnnxRuntimeOptions():
        return on_cpu
    if restyled:
        on_gpu = _prefer_refittable(bundle, on_gpu)
    if choice is BackendChoice.tensorrt:
        return on_gpu
    obstacle = _find_obstacle(bundle, on_gpu)
    if obstacle is None:
        messages.print("[dim]running by TensorRT[/]")
        return on_gpu
    messages.print(f"[dim]running by ONNX Runtime: {obstacle.problem}[/]", highlight=False)
    return on_cpu


def _prefer_refittable(bundle: Path, on_gpu: TensorRTOptions) -> TensorRTOptions:
    """Return the options of refittable plans, if there are any."""
    refittable = replace(on_gpu, refittable=True)
    return refittable if _find_obstacle(bundle, refittable) is None else on_gpu


def _find_obstacle(bundle: Path, on_gpu: TensorRTOptions) -> Live2DiffError | None:
    """Return why TensorRT can't run a bundle here, or None."""
    try:
        gpu = detect_gpu(on_gpu.device)
        if gpu is None:
            return BackendError("there is no NVIDIA GPU", "Install one")
        flavour, _ = choose_flavour(on_gpu.flavour, gpu.compute_capability)
    except (BackendError, GpuError) as error:
        return error
    wanted = (flavour.name, flavour.version, gpu.compute_capability, on_gpu.form, on_gpu.refittable)
    known = PlanStore(on_gpu.plans).find(Bundle.open(bundle, files=()).digest)
    if wanted not in [(key.flavour, key.version, key.target, key.form, key.refittable) for key in known]:
        command = "live2diff-trt build"
        return PlanStoreError(f"it was not built for this GPU; `{command}` does that", f"Build it with `{command}`")
    return None
