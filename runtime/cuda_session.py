"""Opens a stream on a GPU: finds its plans, computes its memory, and only then allocates, loads and captures."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from cuda.core import Device

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.flavour import Flavour, choose_flavour
from live2diff_trt.engine.gpu import Gpu, detect_gpu
from live2diff_trt.engine.plan_manifest import PlanKey
from live2diff_trt.engine.store import PlanStore, StoredPlans
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.kernels.tick_parameters import SINK, WINDOW
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline, FindPlans, SessionParts
from live2diff_trt.runtime.device_frames import FrameExchange
from live2diff_trt.runtime.device_guidance import DeviceGuidance
from live2diff_trt.runtime.device_memory_use import free_memory, has_context
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance
from live2diff_trt.runtime.lanes import Lanes
from live2diff_trt.runtime.memory_estimate import MemoryEstimate, estimate_session
from live2diff_trt.runtime.newest_frames import NewestFrames
from live2diff_trt.runtime.opened_plans import OpenedPlans, know_plans, load_plans
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.styled_parts import StyledParts, open_styled
from live2diff_trt.runtime.tick import Tick
from live2diff_trt.runtime.unet_session import UNetSession, open_unet

logger = logging.getLogger(__name__)


def open_cuda_pipeline(
    bundle: Bundle,
    spec: StreamSpec,
    options: TensorRTOptions,
    seed: int,
    guidance: Guidance = NO_GUIDANCE,
    *,
    room: StreamRoom,
) -> CudaPipeline:
    """Open a stream on a GPU, with plans of its own, ready for its first frame but for the prompt.

    Raises:
        BackendError: if there is no GPU, or no flavour of TensorRT that works on it.
        PlanStoreError: if the bundle has no plans for this GPU, or they are damaged.
        DeviceMemoryError: if the session would not fit; nothing was allocated then.
        SpecError: if the stream's window is not the one the kernels are compiled for.
    """
    rows = StreamRows(spec.steps, guidance.kind)
    flavour, gpu, stored = find_plans(bundle, rows, options)
    with open_plans(spec, stored, flavour, gpu, options, room=room) as opened:
        return open_session(bundle, spec, opened, options, seed, guidance, room=room)


def find_plans(bundle: Bundle, rows: StreamRows, options: TensorRTOptions) -> tuple[Flavour, Gpu, StoredPlans]:
    """Choose the flavour for this GPU, and among the plans that were built for it those that suit the rows best."""
    gpu = require_gpu(options.device)
    flavour, reason = choose_flavour(options.flavour, gpu.compute_capability)
    logger.info("%s %s: %s", flavour.name, flavour.version, reason)
    store = PlanStore(options.plans)
    wanted = PlanKey(
        bundle.digest,
        flavour.name,
        flavour.version,
        gpu.compute_capability,
        options.form,
        options.rows or rows.count,
        options.refittable,
    )
    return flavour, gpu, store.open(_best_key(wanted, store.find(bundle.digest), options.rows is not None))


def open_plans(
    spec: StreamSpec,
    stored: StoredPlans,
    flavour: Flavour,
    gpu: Gpu,
    options: TensorRTOptions,
    *,
    room: StreamRoom,
    styles: int = 0,
) -> OpenedPlans:
    """Load plans that were verified, if a stream on them fits beside them. The first time, they are measured as well.

    Args:
        spec: of the stream.
        stored: the plans.
        flavour: what they were built with.
        gpu: this one.
        options: of the stream.
        room: for what it may be changed to.
        styles: how many sets of other weights are to be loaded apart, beside these.

    Raises:
        DeviceMemoryError: if they would not fit; nothing was allocated then.
        SpecError: if the stream's window is not the one the kernels are compiled for.
    """
    _check_window(spec)
    facts = stored.facts(gpu)
    free_before = None if has_context(options.device) else free_memory(options.device)
    Device(options.device).set_current()
    measured = know_plans(stored, flavour, facts, options.device)
    estimate = _estimate(spec, stored, measured, options, room, styles)
    estimate.refuse_unless_free(free_memory(options.device), spec, overhead_is_there=True)
    logger.info("GPU memory: %.2f GB: %s", estimate.total / 1e9, estimate.describe())
    started = time.perf_counter()
    opened = load_plans(stored, flavour, facts, measured, options.device, spec.dtype)
    opened.free_before = free_before
    logger.info("loaded %s plans in %.1f s", stored.manifest.key.form, time.perf_counter() - started)
    return opened


def open_session(
    bundle: Bundle,
    spec: StreamSpec,
    opened: OpenedPlans,
    options: TensorRTOptions,
    seed: int,
    guidance: Guidance = NO_GUIDANCE,
    *,
    room: StreamRoom,
    tokenizer: PromptTokenizer | None = None,
    find_plans: FindPlans | None = None,
) -> CudaPipeline:
    """Open a stream on plans that are loaded, and hold them. Several threads may do so at once.

    Args:
        bundle: that they are of.
        spec: the stream.
        opened: the plans.
        options: that they were opened with.
        seed: of the noise.
        guidance: of the first frames.
        room: for what it may be changed to.
        tokenizer: the bundle's, if others have it too; None: this stream reads its own.
        find_plans: returns plans that hold other weights, which streams share; None: those of ``opened`` are refitted.

    Raises:
        DeviceMemoryError: if what it takes beside the plans would not fit; nothing was allocated then.
    """
    Device(options.device).set_current()
    estimate = estimate_stream(spec, opened, options, room)
    estimate.of_one_more.refuse_unless_free(free_memory(options.device), spec, overhead_is_there=True)
    started = time.perf_counter()
    rows = StreamRows(spec.steps, guidance.kind)
    unet = open_unet(spec, opened, rows=rows, room=room, overlap=options.overlap)
    with ExitStack() as opening:
        opening.callback(unet.close)
        parts = _surround(unet, tokenizer or PromptTokenizer(bundle), spec, options, room)
        opening.pop_all()
        opening.callback(parts.close)
        pipeline = CudaPipeline(parts, spec, seed, guidance, room=room, find_plans=find_plans)
        opening.pop_all()  # from here on the pipeline closes them
    logger.info("opened a stream in %.1f s", time.perf_counter() - started)
    _keep_overhead(opened, estimate)
    return pipeline


def _keep_overhead(opened: OpenedPlans, estimate: MemoryEstimate) -> None:
    """Keep by how much more memory fell than was allocated, if this is the first stream of the process."""
    free_before, opened.free_before = opened.free_before, None
    if free_before is not None and "overhead_bytes" not in opened.measured:
        overhead = free_before - free_memory(opened.device_id) - estimate.allocated
        opened.keep_measured(overhead_bytes=max(0, overhead))


def _surround(
    session: UNetSession, tokenizer: PromptTokenizer, spec: StreamSpec, options: TensorRTOptions, room: StreamRoom
) -> SessionParts:
    """Add what makes a stream of a UNet: lanes, autoencoder and depth, the tick's order, the way in and out."""
    memory, constants = session.memory, session.constants
    lanes = Lanes(memory, overlap=options.overlap)
    stages = DeviceStages(memory, session.plans, session.kernels, spec, constants.pending_parameters)
    newest = NewestFrames(memory, session.kernels, spec, stages, constants.parameters)
    guidance = DeviceGuidance(memory, spec, room)
    tick = Tick(session.kernels, spec, stages, session.unet, constants, newest, lanes, guidance)
    exchange = FrameExchange(
        memory, session.kernels, lanes, constants.pending_parameters, stages.output, options.output
    )
    spare = None
    if options.hot_restyle:
        with ExitStack() as opening:
            opening.callback(exchange.close)
            with session.opened.load_apart() as apart:
                spare = open_styled(StyledParts(session, stages, tick), apart)
            opening.pop_all()
    return SessionParts(session, lanes, tokenizer, stages, newest, tick, exchange, spare)


def estimate_for(
    bundle: Bundle, spec: StreamSpec, options: TensorRTOptions, guidance: Guidance = NO_GUIDANCE, *, room: StreamRoom
) -> MemoryEstimate | None:
    """Return what a session would take, or None where its plans were never opened on this GPU."""
    _, gpu, stored = find_plans(bundle, StreamRows(spec.steps, guidance.kind), options)
    measured = stored.facts(gpu).load_measured()
    return _estimate(spec, stored, measured, options, room) if "scratch_bytes" in measured else None


def estimate_stream(
    spec: StreamSpec, opened: OpenedPlans, options: TensorRTOptions, room: StreamRoom
) -> MemoryEstimate:
    """Return what a session on plans that are loaded takes."""
    return _estimate(spec, opened.stored, opened.measured, options, room)


def _estimate(
    spec: StreamSpec,
    stored: StoredPlans,
    measured: Mapping[str, Any],
    options: TensorRTOptions,
    room: StreamRoom,
    styles: int = 0,
) -> MemoryEstimate:
    weight_sets = 1 + styles + options.hot_restyle
    return estimate_session(spec, stored, measured, room=room, overlap=options.overlap, weight_sets=weight_sets)


def require_gpu(device_id: int) -> Gpu:
    """Return the GPU; raise BackendError where there is none."""
    gpu = detect_gpu(device_id)
    if gpu is None:
        raise BackendError(
            "there is no NVIDIA GPU with a driver in this machine", "Run on the CPU with --backend onnxruntime"
        )
    return gpu


def _best_key(wanted: PlanKey, known: Iterable[PlanKey], rows_are_fixed: bool) -> PlanKey:
    """Return the plans to open: those with a row per step; else those that leave the fewest rows idle."""
    same = [
        key
        for key in known
        if (key.flavour, key.version, key.target, key.form, key.refittable)
        == (wanted.flavour, wanted.version, wanted.target, wanted.form, wanted.refittable)
    ]
    if rows_are_fixed or not same:
        return wanted
    return min(same, key=lambda key: (-wanted.rows % key.rows, -key.rows))


def _check_window(spec: StreamSpec) -> None:
    if (spec.window, spec.sink) != (WINDOW, SINK):
        raise SpecError(
            f"the CUDA kernels are for a window of {WINDOW} frames, {SINK} of them a sink; this bundle has "
            f"{spec.window} and {spec.sink}",
            "Run it with --backend onnxruntime",
        )
