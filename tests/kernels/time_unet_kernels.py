"""Time the kernels that stand in for parts of the UNet, two rows of float16 as at 512 x 512, on a GPU:

python -m tests.kernels.time_unet_kernels [--variants] [--only NAME]

Launches are captured in a graph, one after another over buffers of their own; ``--variants`` also compiles the sources
with other constants and compares what they compute.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from live2diff_trt.benchmarks.timing import CudaCoreClock
from live2diff_trt.kernels import gated_gelu, group_norm, spatial_attention
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.group_norm import group_norm_workspace
from live2diff_trt.kernels.library import FOLDER, entry_points
from live2diff_trt.kernels.tick_parameters import SINK, TICK_PARAMETERS, WINDOW
from tests.kernels.device import Array, Gpu, open_gpu

logger = logging.getLogger(__name__)

ROWS = 2
BUFFERS = 4
UNCACHED_BYTES = 192 << 20  # more than any GPU caches
LAUNCHES = 40  # in a graph
SAMPLES = 15
HALF_BYTES = 2


@dataclass(frozen=True)
class Timed:
    """A launch with its buffers, and what it has to move and compute."""

    name: str
    launches: list[Callable[[Any], None]]  # one for each set of buffers
    out: DeviceTensor  # of the first of them
    moved_bytes: int
    operations: int = 0


@dataclass(frozen=True)
class Variant:
    """Other constants: in a source file, and what the launchers must know of them."""

    name: str
    file: str
    edit: Callable[[str], str]
    patches: list[Any] = field(default_factory=list)


def uploaded(gpu: Gpu, *shape: int) -> DeviceTensor:
    """Upload random values."""
    return gpu.upload(np.random.default_rng(len(shape)).standard_normal(shape, np.float32).astype(np.float16))


def group_norms(gpu: Gpu) -> Iterator[Timed]:
    """Group norms of every size of the UNet, with SiLU."""
    sizes = {4096: (320, 640, 960), 1024: (320, 640, 960, 1280, 1920), 256: (640, 1280, 1920, 2560), 64: (1280, 2560)}
    for positions, channels in ((one, channels) for one, many in sizes.items() for channels in many):
        pairs = [
            (uploaded(gpu, ROWS, positions, channels), gpu.poisoned((ROWS, positions, channels), "float16"))
            for _ in range(BUFFERS)
        ]
        shared: dict[str, Any] = {
            "scale": uploaded(gpu, channels),
            "bias": uploaded(gpu, channels),
            "row_bias": uploaded(gpu, 1, channels),
            "statistics": gpu.poisoned(group_norm_workspace(ROWS, 32), "float32"),
            "groups": 32,
            "epsilon": 1e-5,
            "silu": True,
        }
        yield Timed(
            f"group_norm {positions} x {channels}",
            [partial(gpu.kernels.group_norm, x=x, out=out, **shared) for x, out in pairs],
            pairs[0][1],
            3 * ROWS * positions * channels * HALF_BYTES,
        )


def full_window(gpu: Gpu) -> DeviceTensor:
    """Upload the parameters of a stream that has run for a while: all slots are seen but the one that is written."""
    record = np.zeros((), TICK_PARAMETERS)
    for row in range(ROWS):
        here = record["rows"][row]
        here["active"], here["position"], here["write_slot"] = 1, WINDOW - 1, SINK + row
        here["past_position"] = np.roll(np.arange(WINDOW), row)
        here["visible"] = np.arange(WINDOW) != here["write_slot"]
    return gpu.upload_bytes(record)


def ring_rows(gpu: Gpu, positions: int, channels: int) -> DeviceTensor:
    """Upload random rows of a ring, and a table of their addresses."""
    frame = np.random.default_rng(positions).standard_normal((positions, channels), np.float32).astype(np.float16)
    ring = gpu.upload(np.stack([[np.roll(frame, 7 * slot + row, 0) for slot in range(WINDOW)] for row in range(ROWS)]))
    return gpu.upload(np.array([ring.row(row).address for row in range(ROWS)], np.uint64))


def temporal_attentions(gpu: Gpu) -> Iterator[Timed]:
    """Temporal attention of every size, over a full window."""
    parameters = full_window(gpu)
    for positions, head_channels in ((4096, 40), (1024, 80), (256, 160), (64, 160)):
        channels = 8 * head_channels
        moved_bytes = ROWS * (2 * (WINDOW - 1) + 6) * positions * channels * HALF_BYTES
        tables = tuple(uploaded(gpu, WINDOW, channels) for _ in range(3))
        sets: list[dict[str, Any]] = [
            {
                **{name: uploaded(gpu, ROWS, positions, channels) for name in ("q", "k", "v")},
                "out": gpu.poisoned((ROWS, positions, channels), "float16"),
                "past_k_rows": ring_rows(gpu, positions, channels),
                "past_v_rows": ring_rows(gpu, positions, channels),
            }
            for _ in range(-(-UNCACHED_BYTES // moved_bytes))
        ]
        shared: dict[str, Any] = {"tables": tables, "parameters": parameters, "heads": 8}
        yield Timed(
            f"streaming_attention {positions}, head {head_channels}",
            [partial(gpu.kernels.streaming_attention, **tensors, **shared) for tensors in sets],
            sets[0]["out"],
            moved_bytes,
        )


def attentions(gpu: Gpu) -> Iterator[Timed]:
    """Self-attention and cross-attention of every size."""
    for positions, head_channels in ((4096, 40), (1024, 80), (256, 160), (64, 160)):
        channels = 8 * head_channels
        for tokens in (positions, 77):
            key_rows = ROWS if tokens == positions else 1
            sets = [
                {
                    "q": uploaded(gpu, ROWS, positions, channels),
                    "k": uploaded(gpu, key_rows, tokens, channels),
                    "v": uploaded(gpu, key_rows, tokens, channels),
                    "out": gpu.poisoned((ROWS, positions, channels), "float16"),
                }
                for _ in range(BUFFERS)
            ]
            yield Timed(
                f"spatial_attention {positions} x {tokens}, head {head_channels}",
                [partial(gpu.kernels.spatial_attention, **tensors, heads=8) for tensors in sets],
                sets[0]["out"],
                2 * (ROWS * positions + key_rows * tokens) * channels * HALF_BYTES,
                4 * ROWS * positions * tokens * channels,
            )


def gated_gelus(gpu: Gpu) -> Iterator[Timed]:
    """GEGLU of every size."""
    for positions, width in ((4096, 1280), (1024, 2560), (256, 5120), (64, 5120)):
        pairs = [
            (uploaded(gpu, ROWS, positions, 2 * width), gpu.poisoned((ROWS, positions, width), "float16"))
            for _ in range(BUFFERS)
        ]
        yield Timed(
            f"gated_gelu {positions} x {width}",
            [partial(gpu.kernels.gated_gelu, x=x, out=out) for x, out in pairs],
            pairs[0][1],
            3 * ROWS * positions * width * HALF_BYTES,
        )


def microseconds(gpu: Gpu, timed: Timed) -> tuple[float, float]:
    """Return the median and the least time of a launch in a graph."""
    timed.launches[0](gpu.stream)
    builder = gpu.device.create_graph_builder()
    builder.begin_building()
    for index in range(LAUNCHES):
        timed.launches[index % len(timed.launches)](builder)
    graph = builder.end_building().complete()
    clock = CudaCoreClock(gpu.stream)
    samples = []
    for _ in range(SAMPLES):
        clock.start()
        graph.launch(gpu.stream)
        clock.stop()
        samples.append(clock.elapsed_ms() * 1000 / LAUNCHES)
    return float(np.median(samples[2:])), min(samples[2:])


def report(gpu: Gpu, timed: Timed, variant: str = "") -> Array:
    """Time, say how long it took, and return what was computed."""
    median, least = microseconds(gpu, timed)
    rates = f"{timed.moved_bytes / median / 1e3:7.0f} GB/s"
    if timed.operations:
        rates += f" {timed.operations / median / 1e6:6.0f} TFLOPS"
    logger.info("%-44s %-34s %8.2f us (least %8.2f) %s", timed.name, variant, median, least, rates)
    return gpu.download(timed.out).astype(np.float32)


def constant(name: str, value: object, struct: str = "") -> Callable[[str], str]:
    """Return what gives a constant another value, in a structure or outside of any."""

    def edit(source: str) -> str:
        begin = source.index(struct)
        found = re.compile(rf"(constexpr \w+ {name} = )[^;]+").search(source, begin)
        assert found is not None, name
        return source[: found.start()] + f"{found[1]}{value}" + source[found.end() :]

    return edit


def tiling(head_channels: int, *, queries: int = 0, other: Callable[[str], str] = str, **constants: int) -> Variant:
    """Return a variant of the attention of one size of heads; ``queries`` are a block's."""

    def edit(source: str) -> str:
        for name, value in constants.items():
            source = constant(name, value, f"struct Tiling<{head_channels}>")(source)
        return other(source)

    names = ", ".join(f"{name} {value}" for name, value in constants.items())
    before, threads = spatial_attention.BLOCKS[head_channels]
    block = (queries or before, constants["warps"] * 32 if "warps" in constants else threads)
    return Variant(
        names,
        f"spatial_attention {head_channels}",
        edit,
        [mock.patch.dict(spatial_attention.BLOCKS, {head_channels: block})],
    )


def together(head_channels: int, keys: int, blocks: int) -> Variant:
    """Return the temporal attention of one size of heads, with other numbers of keys in flight and of blocks."""

    def edit(source: str) -> str:
        header = constant("keys_in_flight", keys)((FOLDER / "attention.cuh").read_text())
        header = constant("blocks_per_multiprocessor", blocks)(header)
        return source.replace('#include "attention.cuh"', header)

    return Variant(f"keys_in_flight {keys}, {blocks} blocks", f"streaming_attention {head_channels}", edit)


def unrolled(source: str) -> str:
    """Both halves of a tile of keys in one body."""
    changed = source.replace("#pragma unroll 1\n    for (int begin", "#pragma unroll\n    for (int begin", 1)
    assert changed != source
    return changed


def named(name: str, variant: Variant) -> Variant:
    """Return a variant by another name."""
    return Variant(name, variant.file, variant.edit, variant.patches)


def variants() -> list[Variant]:
    """Return what may be faster."""
    threads = mock.patch.object(group_norm, "_USUAL_THREADS", 256)
    most, least = "_MOST_VECTORS_AT_ONCE", "_LEAST_POSITIONS"
    return [
        *(together(head, keys, blocks) for head in (40, 80) for keys, blocks in ((2, 8), (8, 4))),
        *(together(160, keys, blocks) for keys, blocks in ((2, 5), (8, 1))),
        named("SUM_BY_PRODUCT", tiling(40, other=constant("SUM_BY_PRODUCT", "true"))),
        named("MARGIN 0", tiling(40, other=constant("MARGIN", "0.0f"))),
        named("unrolled", tiling(40, other=unrolled)),
        named("unrolled, 3 blocks", tiling(40, other=unrolled, blocks_per_multiprocessor=3)),
        tiling(40, stages=2),
        tiling(40, stages=4),
        tiling(40, tile_keys=32, stages=4),
        tiling(40, tile_keys=128, stages=2),
        tiling(40, warps=8, blocks_per_multiprocessor=2, queries=256),
        tiling(40, query_tiles=1, blocks_per_multiprocessor=6, queries=64),
        tiling(40, query_tiles=1, warps=8, blocks_per_multiprocessor=3, queries=128),
        tiling(40, blocks_per_multiprocessor=3),
        named("unrolled", tiling(80, other=unrolled)),
        tiling(80, blocks_per_multiprocessor=4),
        tiling(80, tile_keys=32, stages=3),
        tiling(80, warps=2, blocks_per_multiprocessor=6, queries=32),
        tiling(80, query_tiles=2, blocks_per_multiprocessor=2, queries=128),
        tiling(160, warps=4, blocks_per_multiprocessor=2, queries=64),
        Variant("VECTORS_IN_FLIGHT 2", "group_norm", constant("VECTORS_IN_FLIGHT", 2)),
        Variant("VECTORS_IN_FLIGHT 6", "group_norm", constant("VECTORS_IN_FLIGHT", 6)),
        Variant("256 threads", "group_norm", str, [threads]),
        *(
            Variant(f"at least {count} positions", "group_norm", str, [mock.patch.object(group_norm, least, count)])
            for count in (1, 4)
        ),
        Variant("always two launches", "group_norm", str, [mock.patch.object(group_norm, most, 0)]),
        Variant("one launch where it fits", "group_norm_once", str, [mock.patch.object(group_norm, most, 32)]),
        *(
            Variant(
                f"VECTORS_PER_THREAD {count}",
                "gated_gelu",
                constant("VECTORS_PER_THREAD", count),
                [mock.patch.object(gated_gelu, "_VECTORS_PER_THREAD", count)],
            )
            for count in (1, 4)
        ),
    ]


@contextmanager
def compiled(gpu: Gpu, variant: Variant) -> Iterator[None]:
    """Put a variant's kernels into the library for a while."""
    from cuda.core import Program, ProgramOptions

    file = variant.file.split()[0]
    major, minor = gpu.device.compute_capability
    options = ProgramOptions(
        name=f"{file}.cu", arch=f"sm_{major}{minor}", std="c++17", include_path=str(FOLDER), ptxas_options="-v"
    )
    log = Log()
    program = Program(variant.edit((FOLDER / f"{file}.cu").read_text()), "c++", options=options)
    kernels = program.compile("cubin", logs=log)
    spilled = [int(one) for one in re.findall(r"(\d+) bytes spill stores", log.text) if one != "0"]
    if spilled:
        logger.info("%s: %s spills %s bytes", variant.file, variant.name, spilled)
    library = gpu.kernels._library
    objects, ready = dict(library._objects), dict(library._kernels)
    library._objects.update(dict.fromkeys(entry_points()[file], kernels))
    library._kernels.clear()
    try:
        with ExitStack() as patches:
            for patch in variant.patches:
                patches.enter_context(patch)
            yield
    finally:
        library._objects.update(objects)
        library._kernels.clear()
        library._kernels.update(ready)


class Log:
    """What the compiler says."""

    text = ""

    def write(self, text: str) -> None:
        """Add to it."""
        self.text += text


def concerns(variant: Variant, timed: Timed) -> bool:
    """Whether a variant changes what is timed."""
    file, _, head = variant.file.partition(" ")
    return timed.name.startswith(file.removesuffix("_once")) and timed.name.endswith(head)


def main() -> None:
    """Time everything that is asked for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", action="store_true", help="time other constants, too")
    parser.add_argument("--only", default="", help="what the name of a launch must begin with")
    arguments = parser.parse_args()
    for make in (temporal_attentions, attentions, group_norms, gated_gelus):
        with open_gpu() as gpu:
            cases = [timed for timed in make(gpu) if timed.name.startswith(arguments.only)]
            expected = {timed.name: report(gpu, timed) for timed in cases}
            for variant in variants() if arguments.variants else []:
                concerned = [timed for timed in cases if concerns(variant, timed)]
                if not concerned:
                    continue
                with compiled(gpu, variant):
                    for timed in concerned:
                        actual = report(gpu, timed, variant.name)
                        size = float(np.linalg.norm(expected[timed.name]))
                        off = float(np.linalg.norm(actual - expected[timed.name])) / size
                        if not off < 1e-3:
                            logger.error("%s of %s is off by %.2g", variant.name, timed.name, off)


if __name__ == "__main__":
    main()
