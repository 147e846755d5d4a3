"""The tables of the performance page, in Markdown. What was not measured has no row; a table without rows is empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from live2diff_trt.benchmarks.counted_work import Stream, find_rates, find_unet_limit_ms
from live2diff_trt.benchmarks.results_file import Entry, Results
from live2diff_trt.benchmarks.timed import Timed, find_timed, show_ms

EAGER = "torch-eager"
ATTENTION = "kernel/streaming_attention-"
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
    "host_tick": "what the host does in a tick, the picture's copy into pinned memory included",
    "gather": "taking in the first 8 frames",
    "warm_up": "the first 8 frames, gathered, until all are delivered",
}
_START_UP = {
    "build": "building the plans, once for each bundle and kind of GPU",
    "first_open": "the first opening, in which kernels are compiled",
    "restart": "every later opening in a new process, imports included",
}


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """Return a table, its first ``names`` columns to the left and the others to the right; empty without rows."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"|{' --- |' * names}{' ---: |' * (len(header) - names)}"
    return "\n".join([f"| {' | '.join(header)} |", rule, *body]) if body else ""


def tabulate_limits(results: Results) -> str:
    """Return the rates that the other figures are set against."""
    rates = find_rates(results)
    if rates is None:
        return ""
    rows = [
        ("copying, read and written bytes added", f"{rates.copy_tb_per_s:.2f} TB/s"),
        ("float16 matrix product", f"{rates.matmul_tflop_per_s:.0f} TFLOP/s"),
    ]
    return write_table(("at most, by PyTorch", "rate"), rows)


def tabulate_unet(results: Results, stream: Stream) -> str:
    """Return every backend's tick of the UNet, the fastest first."""
    ticks = sorted(find_timed(results, stream, "unet_tick"), key=lambda tick: tick.p50_ms)
    eager_ms = next((tick.p50_ms for tick in ticks if tick.entry.backend == EAGER), None)
    limit_ms = find_unet_limit_ms(results, stream)
    columns = {"backend": [tick.who for tick in ticks], "ms": [show_ms(tick.p50_ms) for tick in ticks]}
    columns["p99 ms"] = [show_ms(tick.p99_ms) for tick in ticks]
    if eager_ms is not None:
        columns["times as fast as PyTorch eager"] = [f"{eager_ms / tick.p50_ms:.2f}" for tick in ticks]
    if limit_ms is not None:
        columns["× of the limit"] = [f"{tick.p50_ms / limit_ms:.2f}" for tick in ticks]
    columns["error against float32"] = [_show_error(tick.entry.checked_error) for tick in ticks]
    return write_table(list(columns), zip(*columns.values(), strict=True))


def tabulate_frames(results: Results, stream: Stream) -> str:
    """Return rate and latency of whole frames."""
    latencies = {one.who: one for one in find_timed(results, stream, "frame_latency")}
    rows = []
    for frame in find_timed(results, stream, "frame"):
        latency = latencies.get(frame.who)
        late = ("", "") if latency is None else (show_ms(latency.p50_ms), show_ms(latency.p99_ms))
        rows.append((frame.who, f"{1000 / frame.p50_ms:.1f}", show_ms(frame.p50_ms), show_ms(frame.p99_ms), *late))
    return write_table(("backend", "FPS", "ms a frame", "p99 ms", "latency ms", "latency p99 ms"), rows)


def find_stages(results: Results, stream: Stream) -> tuple[list[Timed], list[Timed]]:
    """Return the stages of a tick on the device, and what is beside it; each in the order of a frame."""
    stages = find_timed(results, stream, "stage")
    return _in_order(stages, _STAGES), _in_order(stages, _BESIDE_TICK)


def tabulate_stages(stages: Sequence[Timed]) -> str:
    """Return the stages of a tick on the device, with their share of it."""
    tick_ms = {stage.who: stage.p50_ms for stage in stages if stage.name == "tick"}
    rows = [
        (
            _STAGES[stage.name],
            f"`{stage.name}`",
            stage.who,
            show_ms(stage.p50_ms),
            show_ms(stage.p99_ms),
            _show_share(stage.p50_ms, tick_ms.get(stage.who)),
        )
        for stage in stages
    ]
    return write_table(("what it is", "stage", "backend", "ms", "p99 ms", "of the tick"), rows, names=3)


def tabulate_beside_tick(stages: Sequence[Timed]) -> str:
    """Return what the host does, and warm-up."""
    rows = [
        (_BESIDE_TICK[stage.name], f"`{stage.name}`", stage.who, show_ms(stage.p50_ms), show_ms(stage.p99_ms))
        for stage in stages
    ]
    return write_table(("what it is", "name", "backend", "ms", "p99 ms"), rows, names=3)


def tabulate_attention(results: Results, stream: Stream) -> str:
    """Return the attention kernel at each size, against the rate of copying."""
    rates = find_rates(results)
    rows = []
    for timed in find_timed(results, stream, "kernel"):
        if not timed.entry.name.startswith(ATTENTION):
            continue
        notes = timed.entry.notes
        limit = None if rates is None else rates.copy_tb_per_s
        rows.append(
            (
                timed.entry.name.removeprefix(ATTENTION),
                str(notes["launches"]),
                show_ms(timed.p50_ms),
                f"{notes['bytes_read_and_written'] / 1e9:.2f}",
                f"{notes['tb_per_s']:.2f}",
                _show_share(notes["tb_per_s"], limit),
                "" if limit is None else f"{limit / notes['tb_per_s']:.2f}",
            )
        )
    header = ("height × width × channels", "launches", "ms", "GB moved", "TB/s", "of copying", "× of the limit")
    return write_table(header, rows)


def tabulate_start_up(results: Results, stream: Stream) -> str:
    """Return what a user waits for before the first frame."""
    rows = [
        (_START_UP[wait.name], f"`{wait.name}`", wait.who, f"{wait.p50_ms / 1000:.1f}")
        for wait in _in_order(find_timed(results, stream, "startup"), _START_UP)
    ]
    return write_table(("what it is", "name", "backend", "seconds"), rows, names=3)


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
    rows = [(purpose, _show_whole(size / 1e6), _show_share(size, total)) for purpose, size in parts]
    return write_table(("of the estimate", "MB", "share"), rows)


def _in_order(timed: Sequence[Timed], meanings: dict[str, str]) -> list[Timed]:
    """Return what has a meaning, backend after backend, in the order of the meanings."""
    order = list(meanings)
    backends = list(dict.fromkeys(one.who for one in timed))
    known = [one for one in timed if one.name in meanings]
    return sorted(known, key=lambda one: (backends.index(one.who), order.index(one.name)))


def _show_error(error: float | None) -> str:
    return "not checked" if error is None else f"{error:.1e}"


def _show_share(part: float, whole: float | None) -> str:
    return "" if whole is None else f"{_show_whole(100 * part / whole)} %"


def _show_whole(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 1 else "< 1"


def _show_gb(count: float) -> str:
    return f"{count / 1e9:.2f}"
