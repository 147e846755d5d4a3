"""Our own kernels of a tick, one by one: what they move, how fast, and how near that is to copying.

A launch is repeated over as many copies of its tensors as fill more memory than a GPU caches, in one graph: what is
read comes from memory, and what is timed is launches in a row, as in a tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from cuda.core import Stream

from live2diff_trt.benchmarks.device_work import capture_replay, load_window, make_parameters
from live2diff_trt.benchmarks.frame_sources import draw_pictures
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import Label
from live2diff_trt.benchmarks.timing import CudaCoreClock, time_gpu
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.split import (
    Cut,
    GatedGeluCut,
    GroupNormCut,
    SpatialAttentionCut,
    TemporalAttentionCut,
    UNetSplit,
    inputs_of,
)
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.kernels.window import SLOT_COPY, NewSlots, slot_copies
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_image import DevicePicture
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.guidance import Guidance, GuidanceKind
from live2diff_trt.runtime.split_unet import SplitUNet
from live2diff_trt.runtime.stream_rows import StreamRows
from live2diff_trt.runtime.unet_session import UNetSession

UNCACHED_BYTES = 192 << 20
"""More than any GPU caches."""
_MOST_COPIES = 64
_OTHER_CUTS = {"group_norm": GroupNormCut, "spatial_attention": SpatialAttentionCut, "gated_gelu": GatedGeluCut}
Tensors = dict[str, DeviceTensor]


@dataclass(frozen=True)
class KernelCase:
    """One kernel's launch.

    Attributes:
        name: as the table names it.
        tensors: name → shape and dtype of what it reads and writes; the tick's parameters and constants are there too.
        moved_bytes: what it reads and writes of them, each byte once; of parameters and ranges nothing is counted.
        launch: launches it on those tensors.
        prepare: uploads what of them is not any value, once they have a place.
    """

    name: str
    tensors: dict[str, TensorLayout]
    moved_bytes: int
    launch: Callable[[Stream, Tensors], None]
    prepare: Callable[[DeviceMemory, Tensors], None] = lambda memory, on: None


def time_kernels(results: ResultsFile, point: Point, label: Label, pipeline: CudaPipeline, *, samples: int) -> None:
    """Add ``kernel/…``: each kernel of a tick, the attention at each size and all of them together."""
    session = pipeline.parts.unet
    for case in list_cases(session, pipeline.spec):
        _time_case(results, point, label, session, case, samples)
    if isinstance(session.unet, SplitUNet):
        _time_attention(results, point, label, session, session.unet, samples)
        _time_other_cuts(results, point, label, session, session.unet, samples)
    pipeline.reset()


def list_cases(session: UNetSession, spec: StreamSpec) -> list[KernelCase]:
    """Return what is launched in a tick beside the attention, in that order. A new kernel of a tick belongs here."""
    kernels, table = session.kernels, session.constants.step_table
    image = TensorLayout((3, spec.height, spec.width), spec.dtype)
    pixels = TensorLayout((spec.height, spec.width, 3), "uint8")
    depth_image = TensorLayout((3, spec.depth_size, spec.depth_size), spec.dtype)
    depth_maps = TensorLayout((1, spec.depth_size, spec.depth_size), spec.dtype)
    depth_range = TensorLayout((2,), "float32")
    latent = TensorLayout(spec.latent_shape, spec.dtype)
    rows = TensorLayout((spec.steps, *spec.latent_shape), spec.dtype)
    x0 = replace(rows, dtype="float32")
    parameters = TensorLayout((TICK_PARAMETERS.itemsize,), "uint8")
    return [
        KernelCase(
            "preprocess",
            {"source": pixels, "parameters": parameters, "image": image},
            _bytes(pixels, image),
            lambda stream, on: kernels.preprocess(stream, parameters=on["parameters"], image=on["image"]),
        ),
        KernelCase(
            "resize_bilinear",
            {"image": image, "resized": depth_image},
            _bytes(image, depth_image),
            lambda stream, on: kernels.resize_bilinear(stream, **on),
        ),
        KernelCase(
            "depth_range",
            {"depth_maps": depth_maps, "depth_range": depth_range},
            _bytes(depth_maps),
            lambda stream, on: kernels.depth_range(stream, **on),
        ),
        KernelCase(
            "depth_to_image",
            {"depth_maps": depth_maps, "depth_range": depth_range, "images": replace(image, shape=(1, *image.shape))},
            _bytes(depth_maps, image),
            lambda stream, on: kernels.depth_to_image(stream, **on),
        ),
        KernelCase(
            "enter",
            {"latent": latent, "sample": rows, "parameters": parameters},
            _bytes(latent, latent),  # read, and written into one row
            lambda stream, on: kernels.enter(stream, **on, step_table=table),
        ),
        _keep_case(kernels, spec, parameters),
        KernelCase(
            "lcm_step",
            {"sample": rows, "model_output": rows, "x0": x0, "finished": latent, "parameters": parameters},
            _bytes(rows, rows, x0, rows),  # the last: every row but one moves on, and one leaves
            lambda stream, on: kernels.lcm_step(stream, **on, step_table=table),
        ),
        *(_guided_case(kernels, table, spec, parameters, kind) for kind in ("self", "full", "initialize")),
        KernelCase(
            "postprocess",
            {"image": image, "pixels": pixels},
            _bytes(image, pixels),
            lambda stream, on: kernels.postprocess(stream, **on),
        ),
    ]


def _keep_case(kernels: Kernels, spec: StreamSpec, parameters: TensorLayout) -> KernelCase:
    """Return the copy of the newest frame's latent and depth latent to where they are kept."""
    latents, slots = TensorLayout((1, *spec.latent_shape), spec.dtype), TensorLayout((1,), "uint64")
    kept = TensorLayout((spec.window, *spec.latent_shape), spec.dtype)
    names = ("latent", "depth")

    def prepare(memory: DeviceMemory, on: Tensors) -> None:
        for name in names:
            memory.upload(on[f"{name} row"], np.array([on[f"{name} kept"].address], np.uint64))
        new = [NewSlots(on[name], on[f"{name} row"]) for name in names]
        memory.upload(on["copies"], slot_copies(new).view(np.uint8))

    tensors = dict.fromkeys(names, latents)
    tensors |= {f"{name} row": slots for name in names} | {f"{name} kept": kept for name in names}
    copies = TensorLayout((len(names), SLOT_COPY.itemsize), "uint8")
    return KernelCase(
        "keep",
        {**tensors, "copies": copies, "parameters": parameters},
        2 * _bytes(latents, latents),
        lambda stream, on: kernels.scatter_slots(stream, copies=on["copies"], rows=1, parameters=on["parameters"]),
        prepare,
    )


def _guided_case(
    kernels: Kernels, table: DeviceTensor, spec: StreamSpec, parameters: TensorLayout, kind: GuidanceKind
) -> KernelCase:
    """Return the step of a kind of guidance: beside the plain one it reads origins, or noise of negative rows."""
    rows = TensorLayout((spec.steps, *spec.latent_shape), spec.dtype)
    outputs = replace(rows, shape=(StreamRows(spec.steps, kind).count, *spec.latent_shape))
    x0, latent = replace(rows, dtype="float32"), TensorLayout(spec.latent_shape, spec.dtype)
    tensors = {"sample": rows, "model_output": outputs, "x0": x0, "finished": latent, "parameters": parameters}
    if Guidance(kind).has_origins:
        tensors["origins"] = rows  # each is read, or written
    moved = _bytes(rows, outputs, x0, rows, *([rows] if "origins" in tensors else []))
    return KernelCase(
        f"lcm_step_{kind}", tensors, moved, lambda stream, on: kernels.lcm_step(stream, **on, step_table=table)
    )


def _bytes(*tensors: TensorLayout) -> int:
    return sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in tensors)


def _time_case(
    results: ResultsFile, point: Point, label: Label, session: UNetSession, case: KernelCase, samples: int
) -> None:
    memory, layout = session.memory, BlockLayout(case.tensors)
    copies = min(_MOST_COPIES, -(-UNCACHED_BYTES // layout.nbytes))
    addresses = [memory.allocate("benchmark", layout.nbytes) for _ in range(copies)]
    tensors = [layout.at(address, memory.device_id) for address in addresses]
    for one in tensors:
        _fill(session, one, point)
        case.prepare(memory, one)
    with ExitStack() as stack:
        replay = capture_replay(session, partial(_launch_all, case, tensors), stack)
        samples_ms = time_gpu(replay, CudaCoreClock(memory.stream), samples=samples)
    for address in addresses:
        memory.release("benchmark", address)
    _add(results, point, label, case.name, samples_ms, copies, copies * case.moved_bytes)


def _launch_all(case: KernelCase, tensors: Sequence[Tensors], stream: Stream) -> None:
    for one in tensors:
        case.launch(stream, one)


def _fill(session: UNetSession, tensors: Tensors, point: Point) -> None:
    """Upload random values, and parameters that name the source picture."""
    generator = np.random.default_rng(0)
    for name, tensor in tensors.items():
        if name == "parameters":
            values = make_parameters(point.as_preset().spec())
            source = tensors.get("source", tensor)
            picture = DevicePicture(source.address, point.width, point.height, 3 * point.width)
            values.write_source(picture, point.width, point.height)
            session.memory.upload(tensor, values.memory)
        elif name in ("source", "pixels"):
            session.memory.upload(tensor, draw_pictures(point.width, point.height, 1)[0])
        else:
            session.memory.upload(tensor, generator.standard_normal(tensor.shape).astype(tensor.dtype))


def _time_attention(
    results: ResultsFile, point: Point, label: Label, session: UNetSession, unet: SplitUNet, samples: int
) -> None:
    """Add the streaming attention at each size, and all of a tick together.

    A launch at one size goes through all caches of that size in turn, so that none is still in the GPU's cache.
    """
    spec = point.as_preset().spec()
    load_window(session, spec)
    for size, cuts in _group_by_size(spec, unet.split.temporal_attentions):
        with ExitStack() as stack:
            replay = capture_replay(session, partial(_compute_all, unet, cuts), stack)
            samples_ms = time_gpu(replay, CudaCoreClock(session.memory.stream), samples=samples)
        moved = sum(_attention_bytes(spec, cut) for cut in cuts)
        _add(results, point, label, f"streaming_attention-{size}", samples_ms, len(cuts), moved)


def _group_by_size(
    spec: StreamSpec, cuts: Sequence[TemporalAttentionCut]
) -> Iterator[tuple[str, list[TemporalAttentionCut]]]:
    places = {cache.name: cache for cache in spec.kv_caches}
    groups: dict[str, list[TemporalAttentionCut]] = {}
    for cut in cuts:
        cache = places[cut.place]
        groups.setdefault(f"{cache.height}x{cache.width}x{cache.channels}", []).append(cut)
    yield from {**groups, "all": list(cuts)}.items()


def _time_other_cuts(
    results: ResultsFile, point: Point, label: Label, session: UNetSession, unet: SplitUNet, samples: int
) -> None:
    """Add each other kernel of the UNet: all its launches of a tick in a row, on what a tick left in the arena."""
    unet.tick(session.memory.stream)
    for name, kind in _OTHER_CUTS.items():
        cuts = [cut for cut in unet.split.cuts if isinstance(cut, kind)]
        with ExitStack() as stack:
            replay = capture_replay(session, partial(_compute_all, unet, cuts), stack)
            samples_ms = time_gpu(replay, CudaCoreClock(session.memory.stream), samples=samples)
        moved = point.steps * sum(_row_bytes(unet.split, cut) for cut in cuts)
        _add(results, point, label, f"{name}-all", samples_ms, len(cuts), moved)


def _row_bytes(split: UNetSplit, cut: Cut) -> int:
    """Bytes of one row that a kernel reads and writes, each once; inputs of the UNet are left out."""
    crossing = {tensor.name: tensor for tensor in split.tensors}
    return sum(crossing[name].row_bytes for name in (*inputs_of(cut), cut.out) if name in crossing)


def _compute_all(unet: SplitUNet, cuts: Sequence[Cut], stream: Stream) -> None:
    for cut in cuts:
        unet.compute(stream, cut)


def _attention_bytes(spec: StreamSpec, cut: TemporalAttentionCut) -> int:
    """Bytes of one launch over all rows: visible keys and values, q, k and v read; out and the new slot written."""
    (elements,) = (cache.positions * cache.channels for cache in spec.kv_caches if cache.name == cut.place)
    visible = spec.window - 1  # all but the slot that is being replaced
    return spec.steps * (2 * visible + 3 + 3) * elements * np.dtype(spec.dtype).itemsize


def _add(
    results: ResultsFile, point: Point, label: Label, name: str, samples_ms: list[float], launches: int, moved: int
) -> None:
    rate = round(moved / float(np.median(samples_ms)) / 1e9, 3)
    notes: dict[str, Any] = {"launches": launches, "bytes_read_and_written": moved, "tb_per_s": rate}
    results.add_samples(f"kernel/{name}", *label, point, samples_ms, **notes)
