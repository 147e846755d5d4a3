"""Examines what a run on a GPU stands on: GPU, TensorRT, kernels. Each thing is imported when it is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from live2diff_trt.engine.errors import FlavourError, GpuError
from live2diff_trt.engine.flavour import ComputeCapability, FlavourChoice, Verdict, choose_flavour, judge_flavours
from live2diff_trt.engine.gpu import Gpu, detect_gpu
from live2diff_trt.engine.onnxruntime_module import import_onnxruntime
from live2diff_trt.engine.store import PlanStore

State = Literal["ok", "warn", "missing"]

_INSTALL_KERNEL_COMPILER = "Install it with `pip install live2diff-trt[cuda]`"


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: what it is.
        state: ``missing`` where a run on the GPU can't work without it, ``warn`` where it works but something else will
            not, or slower.
        detail: what was found. A sentence without its full stop.
        remedy: what to do about it, as a sentence without its full stop; empty where all is well.
    """

    subject: str
    state: State
    detail: str
    remedy: str = ""


def is_fit(findings: Iterable[Finding]) -> bool:
    """Whether a run on the GPU will work: nothing that it needs is missing."""
    return all(finding.state != "missing" for finding in findings)


def examine_gpu(device_id: int) -> tuple[Gpu | None, Finding]:
    """Return the GPU, None where there is none, and what is to be said of it."""
    try:
        gpu = detect_gpu(device_id)
    except GpuError as error:
        return None, Finding("GPU", "missing", error.problem, error.remedy)
    if gpu is None:
        return None, Finding(
            "GPU",
            "missing",
            "there is no NVIDIA GPU with a driver in this machine",
            "Install the driver, so that `nvidia-smi` shows the GPU, or run on the CPU with --backend onnxruntime",
        )
    return gpu, Finding("GPU", "ok", f"{gpu.name}, compute capability {_dotted(gpu.compute_capability)}")


def examine_driver(gpu: Gpu) -> Finding:
    """Say which driver runs the GPU, and which version of CUDA it speaks."""
    version = driver_cuda_version()
    return Finding("driver", "ok", f"{gpu.driver}, speaks CUDA {_dotted(version)}")


def driver_cuda_version() -> tuple[int, int]:
    """Return the newest version of CUDA that the driver speaks; there must be a GPU."""
    _, version = import_module("cuda.bindings.driver").cuDriverGetVersion()
    return version // 1000, version % 1000 // 10


def examine_flavours(choice: FlavourChoice, gpu: Gpu | None) -> list[Finding]:
    """Judge both flavours for the GPU, or for building ahead where there is none, and say which is taken and why."""
    capability = None if gpu is None else gpu.compute_capability
    verdicts = judge_flavours(capability)
    try:
        flavour, reason = choose_flavour(choice, capability)
    except FlavourError as error:
        return [*map(_describe_verdict, verdicts), Finding("TensorRT", "missing", error.problem, error.remedy)]
    why = f"{flavour.name} is taken, by --flavour {choice}: {reason}"
    return [*map(_describe_verdict, verdicts), Finding("TensorRT", "ok", why)]


def _describe_verdict(verdict: Verdict) -> Finding:
    if verdict.usable:
        return Finding(verdict.name, "ok", verdict.reason)
    # The other flavour may do: that none does is said of TensorRT as a whole.
    remedy = "Not needed where the other flavour works"
    if verdict.version is None:
        remedy = f"Install it with `pip install live2diff-trt[{verdict.name}]`; not needed where the other one works"
    return Finding(verdict.name, "warn", verdict.reason, remedy)


def examine_kernels(gpu: Gpu | None) -> list[Finding]:
    """Say whether our CUDA kernels come compiled, and whether NVRTC can compile them where they do not."""
    binaries = _find_fat_binaries()
    compiler = _examine_nvrtc(gpu, needed=not binaries)
    if binaries:
        kernels = Finding("kernels", "ok", "installed as fat binaries")
    elif compiler.state == "ok":
        kernels = Finding("kernels", "ok", "NVRTC compiles them on first use, about ten seconds, and they are kept")
    else:
        kernels = Finding(
            "kernels", "missing", "there are no fat binaries, and NVRTC can't compile the kernels", compiler.remedy
        )
    return [compiler, kernels]


def _find_fat_binaries() -> bool:
    """Whether every kernel is installed in compiled form."""
    from live2diff_trt.kernels.library import FOLDER, load_fat_binaries

    try:
        return load_fat_binaries(FOLDER) is not None
    except ImportError:  # no cuda-core, which loads them
        return False


def _examine_nvrtc(gpu: Gpu | None, *, needed: bool) -> Finding:
    obstacle = _find_nvrtc_obstacle(gpu)
    if obstacle is None:
        return Finding("NVRTC", "ok", f"version {_dotted(_nvrtc_version())}")
    problem, remedy = obstacle
    if needed:
        return Finding("NVRTC", "missing", problem, remedy)
    return Finding("NVRTC", "warn", f"{problem}; fat binaries are there", f"Nothing is needed, or: {remedy}")


def _find_nvrtc_obstacle(gpu: Gpu | None) -> tuple[str, str] | None:
    """Return why NVRTC can't compile for the GPU, and what to do; None where it can, or where there is no GPU."""
    try:
        missing_library = import_module("cuda.pathfinder").DynamicLibNotFoundError
        nvrtc = import_module("cuda.bindings.nvrtc")
    except ImportError as error:
        return f"it can't be imported ({error})", _INSTALL_KERNEL_COMPILER
    try:
        version = _nvrtc_version()
    except missing_library:
        return "its library is not installed", _INSTALL_KERNEL_COMPILER
    if gpu is None:
        return None
    return _find_mismatch(nvrtc, version, gpu.compute_capability)


def _find_mismatch(nvrtc: Any, version: tuple[int, int], capability: ComputeCapability) -> tuple[str, str] | None:
    """Return why what NVRTC compiles would not run on this GPU under this driver, and what to do, or None."""
    _, architectures = nvrtc.nvrtcGetSupportedArchs()
    if capability[0] * 10 + capability[1] not in architectures:
        problem = f"version {_dotted(version)} does not know compute capability {_dotted(capability)}"
        return problem, "Install a version of nvidia-cuda-nvrtc that does: a newer one for a newer GPU"
    spoken = driver_cuda_version()
    if version[0] > spoken[0]:  # within one major version older drivers load what newer compilers make
        problem = f"version {_dotted(version)} compiles for drivers newer than this one, which speaks {_dotted(spoken)}"
        return problem, f"Update the driver to one that speaks CUDA {version[0]}"
    return None


def _nvrtc_version() -> tuple[int, int]:
    _, major, minor = import_module("cuda.bindings.nvrtc").nvrtcVersion()
    return major, minor


def examine_onnxruntime() -> Finding:
    """Say whether ONNX Runtime is there, which runs bundles on the CPU; TensorRT does not need it."""
    try:
        runtime = import_onnxruntime()
    except ImportError as error:
        return Finding(
            "ONNX Runtime",
            "warn",
            f"it can't be imported ({error}); --backend onnxruntime needs it, TensorRT does not",
            "Install it with `pip install live2diff-trt[onnxruntime]`",
        )
    providers = ", ".join(runtime.get_available_providers())
    return Finding("ONNX Runtime", "ok", f"version {runtime.__version__} with {providers}")


def examine_cache(root: Path | None) -> Finding:
    """Say where plans are kept, and whether new ones can be written there."""
    folder = PlanStore(root).root
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding("plans", "ok", f"kept in {folder}" + ("" if folder.exists() else ", which will be made"))
    return Finding(
        "plans",
        "warn",
        f"they are kept in {folder}, which can't be written: new ones can't be built there",
        "Choose another folder with --plans or LIVE2DIFF_TRT_CACHE, or mend its permissions",
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
