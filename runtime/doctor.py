"""Examines whether a stream would run on this machine's GPU, of one bundle or in general."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from live2diff_trt.bundle.errors import BundleError, Live2DiffError
from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.doctor import (
    Finding,
    State,
    examine_cache,
    examine_driver,
    examine_flavours,
    examine_gpu,
    examine_kernels,
    examine_onnxruntime,
    is_fit,
)
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.store import PlanStore
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.kernels.library import HEAD_CHANNELS
from live2diff_trt.kernels.tick_parameters import SINK, WINDOW

if TYPE_CHECKING:
    from live2diff_trt.runtime.memory_estimate import MemoryEstimate

_CODECS = (
    ("h264", "r", "H.264 can't be read"),
    ("hevc", "r", "HEVC can't be read"),
    ("libx264", "w", "video files can't be written"),
    ("h264_nvenc", "w", "the GPU can't encode video"),
)


def examine(bundle: Path | None, options: TensorRTOptions) -> list[Finding]:
    """Examine everything that streaming needs, from the machine up to the bundle. Opens no plan, allocates nothing.

    Args:
        bundle: what would be streamed; None: nothing in particular.
        options: how it would be streamed.
    """
    gpu, found = examine_gpu(options.device)
    findings = [found]
    if gpu is not None:
        findings += [examine_driver(gpu), examine_free_memory(options.device)]
    findings += examine_flavours(options.flavour, gpu)
    findings += examine_kernels(gpu)
    findings += [examine_onnxruntime(), *examine_codecs(), examine_cache(options.plans)]
    if bundle is not None:
        findings += examine_bundle(bundle, options, gpu, machine_is_fit=is_fit(findings))
    return findings


def examine_codecs() -> list[Finding]:
    """Say which of the codecs of usual videos this FFmpeg has."""
    av = import_module("av")
    unknown = import_module("av.codec.codec").UnknownCodecError

    def has(name: str, mode: str) -> bool:
        try:
            av.codec.Codec(name, mode)
        except unknown:
            return False
        return True

    return [
        _describe_codec(name, "decoder" if mode == "r" else "encoder", has(name, mode), loss)
        for name, mode, loss in _CODECS
    ]


def _describe_codec(name: str, kind: str, there: bool, loss: str) -> Finding:
    if there:
        return Finding(f"{name} {kind}", "ok", "this FFmpeg has it")
    return Finding(f"{name} {kind}", "warn", f"this FFmpeg lacks it: {loss}", "Install PyAV from its wheel")


def examine_free_memory(device_id: int) -> Finding:
    """Say how much of the GPU's memory is free; there must be a GPU."""
    from cuda.core.system import NvmlError
    from cuda.pathfinder import DynamicLibNotFoundError

    from live2diff_trt.runtime.device_memory_use import free_memory

    try:
        free = free_memory(device_id)
    except (NvmlError, DynamicLibNotFoundError) as error:
        problem = f"the driver does not say how much is free ({str(error).strip().rstrip('.')})"
        return Finding("GPU memory", "missing", problem, "Install NVML, which `nvidia-smi` uses too, with the driver")
    return Finding("GPU memory", "ok", f"{free / 1e9:.2f} GB free")


def examine_bundle(folder: Path, options: TensorRTOptions, gpu: Gpu | None, *, machine_is_fit: bool) -> list[Finding]:
    """Examine a bundle, its plans, and the memory that a session of it takes.

    Args:
        folder: of the bundle.
        options: how it would be streamed.
        gpu: where; None: no GPU.
        machine_is_fit: whether plans could be opened here at all.
    """
    try:
        bundle = Bundle.open(folder, (TOKENIZER_FILE,))
    except BundleError as error:
        return [Finding("bundle", "missing", error.problem, error.remedy)]
    spec = bundle.spec
    findings = [_examine_spec(spec, options)]
    if gpu is None or not machine_is_fit:
        return [*findings, _list_plans(bundle, options)]
    return [*findings, *_examine_plans(bundle, options)]


def _examine_spec(spec: StreamSpec, options: TensorRTOptions) -> Finding:
    """Say what a bundle is, and whether there are kernels for it."""
    what = f"{spec.width}x{spec.height}, T = {spec.steps}, {spec.dtype}"
    on_cpu = "Run it with --backend onnxruntime"
    if (spec.window, spec.sink) != (WINDOW, SINK):
        window = f"{what}; a window of {spec.window} frames, {spec.sink} of them a sink, has no kernels"
        return Finding("bundle", "missing", window, on_cpu)
    heads = {cache.channels // spec.heads for cache in spec.kv_caches} - set(HEAD_CHANNELS)
    if heads and options.form == "split":
        channels = f"{what}; no kernels exist for heads of {', '.join(map(str, sorted(heads)))} channels"
        return Finding("bundle", "missing", channels, f"Use --form whole. {on_cpu}, if that is too slow")
    return Finding("bundle", "ok", what)


def _list_plans(bundle: Bundle, options: TensorRTOptions) -> Finding:
    """Say which plans there are, where none can be opened."""
    known = [key.describe() for key in PlanStore(options.plans).find(bundle.digest)]
    if known:
        detail = f"there are plans for {' and for '.join(known)}; whether they suit can't be told here"
        return Finding("bundle's plans", "warn", detail, "Mend first what is missing above")
    return Finding(
        "bundle's plans", "missing", "there are none of this bundle", "Build them with `live2diff-trt build`"
    )


def _examine_plans(bundle: Bundle, options: TensorRTOptions) -> list[Finding]:
    """Verify the plans that a stream would take, and compare the memory it needs with what is free."""
    from live2diff_trt.runtime.cuda_session import find_plans
    from live2diff_trt.runtime.device_memory_use import free_memory
    from live2diff_trt.runtime.memory_estimate import estimate_session
    from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows

    try:
        _, gpu, stored = find_plans(bundle, StreamRows(bundle.spec.steps), options)
    except Live2DiffError as error:
        return [Finding("bundle's plans", "missing", error.problem, error.remedy)]
    found = Finding("bundle's plans", "ok", f"{stored.manifest.key.describe()}, {stored.bytes / 1e9:.2f} GB")
    measured = stored.facts(gpu).load_measured()
    if "scratch_bytes" not in measured:
        remedy = "Stream once: the first opening measures it, and refuses to go on if it does not fit"
        return [found, Finding("memory needed", "warn", "not known: these plans were never opened on this GPU", remedy)]
    steps = bundle.spec.steps
    estimate = estimate_session(bundle.spec, stored, measured, room=StreamRoom(steps), overlap=options.overlap)
    return [found, judge_memory(estimate, free_memory(options.device), bundle.spec)]


def judge_memory(estimate: MemoryEstimate, free: int, spec: StreamSpec) -> Finding:
    """Compare what a session takes with the ``free`` bytes of the GPU."""
    from live2diff_trt.runtime.errors import DeviceMemoryError

    state: State = "ok"
    detail, remedy = f"{estimate.total / 1e9:.2f} GB: {estimate.describe()}", ""
    try:
        estimate.refuse_unless_free(free, spec, overhead_is_there=False)
    except DeviceMemoryError as error:
        state, detail, remedy = "missing", error.problem, error.remedy
    return Finding("memory needed", state, detail, remedy)
