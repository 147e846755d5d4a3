"""The tables about one point. What was not measured has no row; a table without rows is empty."""

from __future__ import annotations

from collections.abc import Sequence

from live2diff_trt.benchmarks.counted_work import find_limit_ms, find_rates
from live2diff_trt.benchmarks.markdown import (
    show_error,
    show_share,
    show_times,
    show_whole,
    write_columns,
    write_table,
)
from live2diff_trt.benchmarks.results_file import Entry, Results
from live2diff_trt.benchmarks.timed import Stream, Timed, find_timed, show_ms

EAGER = "torch-eager"
LIMIT_KERNELS = ("copy", "matmul")
PARTS_OF_TICK = ("enter", "denoise", "decode")
PARTS_OF_ENTER = ("see", "encode", "estimate_depth", "embed_depth")
_STAGES = {
    "enter": "everything before the UNet",
    "see": "part of enter: the picture → the networks' inputs",
    "encode": "part of enter: the picture → its latent",
    "estimate_depth": "part of enter: the depth network",
    "embed_depth": "part of enter: the depth map → its latent → the UNet's depth features",
    "denoise": "the UNet, all rows at once, and the step of the schedule",
    "decode": "the finished latent → the picture",
    "tick": "all three as one graph",
}
_BESIDE_TICK = {
    "host_tick_page_locked": "what the host does in a tick, of a page-locked frame, as `run` gives them",
    "host_tick": "what the host does in a tick, of a frame in ordinary memory, copying it included",
    "steady_frame": "from one finished frame to the next, many in a row at saturation",
    "gather": "taking in the first 8 frames",
    "warm_up": "the first 8 frames, gathered, until all are delivered",
}
_START_UP = {
    "export": "exporting the bundle, with random weights",
    "build": "building the plans, once for each bundle and kind of GPU",
    "first_open": "the first opening, in which kernels are compiled",
    "restart": "every later opening",
}


def tabulate_limits(results: Results) -> str:
    """Return the rates that the other figures are set against."""
    rates = find_rates(results)
    if rates is None:
        return ""
    rows = [
        ("copying, read and written bytes added", f"{rates.copy_tb_per_s:.3g} TB/s"),
        (f"{rates.dtype} matrix product", f"{rates.matmul_tflop_per_s:.3g} TFLOP/s"),
    ]
    return write_table(("at most, by PyTorch", "rate"), rows)


def tabulate_unet(results: Results, stream: Stream) -> str:
    """Return every backend's tick of the UNet, the fastest first."""
    ticks = sorted(find_timed(results, stream, "unet_tick"), key=lambda tick: tick.p50_ms)
    eager_ms = next((tick.p50_ms for tick in ticks if tick.entry.backend == EAGER), None)
    return write_columns(
        {
            "backend": [tick.who for tick in ticks],
            "ms": [show_ms(tick.p50_ms) for tick in ticks],
            "p99 ms": [show_ms(tick.p99_ms) for tick in ticks],
            "times as fast as PyTorch eager": [
                show_times(None if eager_ms is None else eager_ms / tick.p50_ms) for tick in ticks
            ],
            "× of the limit": [show_times_of_limit(results, tick) for tick in ticks],
            "error against float32": [show_error(tick.entry.checked_error) for tick in ticks],
        }
    )


def tabulate_frames(results: Results, stream: Stream) -> str:
    """Return how many whole frames each backend makes, the fastest first."""
    frames = sorted(find_timed(results, stream, "frame"), key=lambda frame: frame.p50_ms)
    return write_columns(
        {
            "backend": [frame.who for frame in frames],
            "FPS": [f"{1000 / frame.p50_ms:.1f}" for frame in frames],
            "ms a frame": [show_ms(frame.p50_ms) for frame in frames],
            "p99 ms": [show_ms(frame.p99_ms) for frame in frames],
            "× of the limit": [show_times_of_limit(results, frame) for frame in frames],
            "pictures' error against float32": [show_error(frame.entry.checked_error) for frame in frames],
        }
    )


def tabulate_latency(results: Results, stream: Stream) -> str:
    """Return how late each backend's frames are, those first that are least late."""
    beyond = {one.who: one for one in find_timed(results, stream, "frame_latency_beyond")}
    late = sorted(find_timed(results, stream, "frame_latency"), key=lambda one: one.p50_ms)
    rows = []
    for one in late:
        interval_ms = one.entry.notes.get("source_interval_ms")
        own = beyond.get(one.who)
        rows.append(
            (
                one.who,
                "at once" if interval_ms is None else show_ms(interval_ms),
                show_ms(one.p50_ms),
                show_ms(one.p99_ms),
                "" if own is None else show_ms(own.p50_ms),
                "" if own is None else show_ms(own.p99_ms),
            )
        )
    header = ("backend", "a frame comes every … ms", "latency ms", "p99 ms", "beyond its T − 1 ticks ms")
    return write_table((*header, "p99 ms"), rows)


def find_stages(results: Results, stream: Stream) -> tuple[list[Timed], list[Timed]]:
    """Return the stages of a tick on the device, and what is beside it; each in the order of a frame."""
    stages = find_timed(results, stream, "stage")
    return _in_order(stages, _STAGES), _in_order(stages, _BESIDE_TICK)


def tabulate_stages(results: Results, stages: Sequence[Timed]) -> str:
    """Return the stages of a tick on the device, with their share of it."""
    tick_ms = {stage.who: stage.p50_ms for stage in stages if stage.name == "tick"}
    return write_columns(
        {
            "what it is": [_STAGES[stage.name] for stage in stages],
            "stage": [f"`{stage.name}`" for stage in stages],
            "backend": [stage.who for stage in stages],
            "ms": [show_ms(stage.p50_ms) for stage in stages],
            "p99 ms": [show_ms(stage.p99_ms) for stage in stages],
            "of the tick": [show_share(stage.p50_ms, tick_ms.get(stage.who)) for stage in stages],
            "× of the limit": [show_times_of_limit(results, stage) for stage in stages],
        },
        names=3,
    )


def tabulate_beside_tick(stages: Sequence[Timed]) -> str:
    """Return what the host does, how steady frames are, and warm-up."""
    rows = [
        (_BESIDE_TICK[stage.name], f"`{stage.name}`", stage.who, show_ms(stage.p50_ms), show_ms(stage.p99_ms))
        for stage in stages
    ]
    return write_table(("what it is", "name", "backend", "ms", "p99 ms"), rows, names=3)


def find_kernels(results: Results, stream: Stream) -> list[Timed]:
    """Return our own kernels, in the order in which they were measured."""
    return [one for one in find_timed(results, stream, "kernel") if one.name not in LIMIT_KERNELS]


def tabulate_kernels(results: Results, kernels: Sequence[Timed]) -> str:
    """Return our own kernels against the rate of copying."""
    rates = find_rates(results)
    rows = []
    for kernel in kernels:
        notes = kernel.entry.notes
        moved = notes["bytes_read_and_written"] / notes["launches"]
        rows.append(
            (
                f"`{kernel.name}`",
                str(notes["launches"]),
                show_ms(kernel.p50_ms),
                f"{1000 * kernel.p50_ms / notes['launches']:.1f}",
                f"{moved / 1e6:.2f}",
                f"{notes['tb_per_s']:.2f}",
                show_share(notes["tb_per_s"], None if rates is None else rates.copy_tb_per_s),
                show_times_of_limit(results, kernel),
            )
        )
    header = ("kernel", "launches", "ms together", "µs a launch", "MB a launch", "TB/s", "of copying", "× of the limit")
    return write_table(header, rows)


def tabulate_start_up(results: Results, stream: Stream) -> str:
    """Return what a user waits for before the first frame."""
    waits = _in_order(find_timed(results, stream, "startup"), _START_UP)
    peaks = [wait.entry.notes.get("peak_resident_bytes") for wait in waits]
    return write_columns(
        {
            "what it is": [_START_UP[wait.name] for wait in waits],
            "name": [f"`{wait.name}`" for wait in waits],
            "backend": [wait.who for wait in waits],
            "seconds": [f"{wait.p50_ms / 1000:.1f}" for wait in waits],
            "GB of memory at most": ["" if peak is None else f"{peak / 1e9:.1f}" for peak in peaks],
        },
        names=3,
    )


def tabulate_memory(memory: Entry) -> str:
    """Return the estimate of a session beside what free memory fell by."""
    notes = memory.notes
    off = notes["estimated_bytes"] / notes["fell_bytes"] - 1
    rows = [
        ("estimated before anything is allocated", _show_gb(notes["estimated_bytes"])),
        ("free memory fell by", _show_gb(notes["fell_bytes"])),
        ("the estimate is off by", f"{100 * off:+.2f} %"),
    ]
    return write_table(("a session's GPU memory", "GB"), rows)


def tabulate_memory_parts(memory: Entry) -> str:
    """Return the estimate's breakdown, the largest first."""
    parts = sorted(memory.notes["parts"].items(), key=lambda part: -part[1])
    total = memory.notes["estimated_bytes"]
    rows = [(purpose, show_whole(size / 1e6), show_share(size, total)) for purpose, size in parts]
    return write_table(("of the estimate", "MB", "share"), rows)


def tabulate_quality(entries: Sequence[Entry]) -> str:
    """Return how far each lossy option's pictures are from those of its baseline."""
    rows = [
        (
            f"`{entry.name.partition('/')[2]}`",
            entry.notes["clip"],
            str(entry.notes["frames"]),
            _show_decibels(entry.notes["psnr_db"]),
            _show_decibels(entry.notes["worst_psnr_db"]),
            f"{entry.notes['ssim']:.4f}",
            f"{entry.notes['worst_ssim']:.4f}",
        )
        for entry in entries
    ]
    header = ("option", "clip", "frames", "PSNR dB", "of the worst frame", "SSIM", "of the worst frame")
    return write_table(header, rows, names=2)


def show_times_of_limit(results: Results, timed: Timed) -> str:
    """Return how many times the limit something takes; nothing where its work or the rates are not known."""
    limit_ms = find_limit_ms(results, timed.entry)
    return show_times(None if not limit_ms else timed.p50_ms / limit_ms)


def _in_order(timed: Sequence[Timed], meanings: dict[str, str]) -> list[Timed]:
    """Return what has a meaning, backend after backend, in the order of the meanings."""
    order = list(meanings)
    backends = list(dict.fromkeys(one.who for one in timed))
    known = [one for one in timed if one.name in meanings]
    return sorted(known, key=lambda one: (backends.index(one.who), order.index(one.name)))


def _show_decibels(decibels: float | None) -> str:
    return "equal" if decibels is None else f"{decibels:.1f}"


def _show_gb(count: float) -> str:
    return f"{count / 1e9:.2f}"
