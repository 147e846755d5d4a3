"""The tables of the performance page, in Markdown. What was not measured has no row; a table without rows is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from live2diff_trt.benchmarks.counted_work import Stream, find_rates, find_unet_limit_ms
from live2diff_trt.benchmarks.results_file import Entry, Results

EAGER = "torch-eager"
ATTENTION = "kernel/streaming_attention-"
PARTS_OF_TICK = ("enter", "denoise", "decode")
PARTS_OF_ENTER = ("see", "encode", "estimate_depth", "embed_depth")
_STAGES = {
    "enter": "all before the UNet",
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


class Timed(NamedTuple):
    """An entry that was timed: its last name (``stage/enter`` → ``enter``), who did it, and how long it took."""

    entry: Entry
    name: str
    who: str
    p50_ms: float
    p99_ms: float


def find_streams(results: Results) -> list[Stream]:
    """Return what was streamed, in the order in which it was measured."""
    return list(dict.fromkeys(stream for entry in results.entries if (stream := _stream_of(entry)) is not None))


def find_timed(results: Results, stream: Stream, prefix: str) -> list[Timed]:
    """Return the entries of a stream that were timed and whose name is ``prefix``, or begins with it and a slash."""
    return [
        Timed(entry, entry.name.rpartition("/")[2], " ".join(filter(None, (entry.backend, entry.form))), *times)
        for entry in results.entries
        if _stream_of(entry) == stream and (entry.name == prefix or entry.name.startswith(f"{prefix}/"))
        if (times := _times_of(entry)) is not None
    ]


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, the first column to the left and the others to the right; empty if there are no rows."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"| --- |{' ---: |' * (len(header) - 1)}"
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
    return write_table(("what it is", "stage", "backend", "ms", "p99 ms", "of the tick"), rows)


def tabulate_beside_tick(stages: Sequence[Timed]) -> str:
    """Return what the host does, and warm-up."""
    return _tabulate_named(stages, _BESIDE_TICK, "ms", show_ms)


def tabulate_attention(results: Results, stream: Stream) -> str:
    """Return the attention kernel at each size, against the rate of copying."""
    rates = find_rates(results)
    rows = []
    for timed in find_timed(results, stream, "kernel"):
        if not timed.entry.name.startswith(ATTENTION):
            continue
        notes = timed.entry.notes
        share = None if rates is None else rates.copy_tb_per_s
        rows.append(
            (
                timed.entry.name.removeprefix(ATTENTION),
                str(notes["launches"]),
                show_ms(timed.p50_ms),
                f"{notes['bytes_read_and_written'] / 1e9:.2f}",
                f"{notes['tb_per_s']:.2f}",
                _show_share(notes["tb_per_s"], share),
                "" if share is None else f"{share / notes['tb_per_s']:.2f}",
            )
        )
    header = ("height × width × channels", "launches", "ms", "GB moved", "TB/s", "of copying", "× of the limit")
    return write_table(header, rows)


def tabulate_start_up(results: Results, stream: Stream) -> str:
    """Return what a user waits for before the first frame."""
    waits = _in_order(find_timed(results, stream, "startup"), _START_UP)
    return _tabulate_named(waits, _START_UP, "s", lambda ms: f"{ms / 1000:.1f}")


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
    rows = [(purpose, f"{size / 1e6:,.1f}", _show_share(size, total)) for purpose, size in parts]
    return write_table(("of the estimate", "MB", "share"), rows)


def show_ms(ms: float) -> str:
    """Return milliseconds with the digits that mean something."""
    return f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def _tabulate_named(timed: Sequence[Timed], meanings: dict[str, str], unit: str, show: Callable[[float], str]) -> str:
    rows = [
        (meanings[one.name], f"`{one.name}`", one.who, show(one.p50_ms), show(one.p99_ms), str(one.entry.samples))
        for one in timed
    ]
    return write_table(("what it is", "name", "backend", unit, f"p99 {unit}", "samples"), rows)


def _in_order(timed: Sequence[Timed], meanings: dict[str, str]) -> list[Timed]:
    """Return what has a meaning, backend after backend, in the order of the meanings."""
    order = list(meanings)
    backends = list(dict.fromkeys(one.who for one in timed))
    known = [one for one in timed if one.name in meanings]
    return sorted(known, key=lambda one: (backends.index(one.who), order.index(one.name)))


def _stream_of(entry: Entry) -> Stream | None:
    if entry.steps is None or entry.height is None or entry.width is None or entry.dtype is None:
        return None
    return Stream(entry.steps, entry.height, entry.width, entry.dtype)


def _times_of(entry: Entry) -> tuple[float, float] | None:
    return None if entry.p50_ms is None or entry.p99_ms is None else (entry.p50_ms, entry.p99_ms)


def _show_error(error: float | None) -> str:
    return "not checked" if error is None else f"{error:.1e}"


def _show_share(part: float, whole: float | None) -> str:
    return "" if whole is None else f"{100 * part / whole:.0f} %"


def _show_gb(count: float) -> str:
    return f"{count / 1e9:.2f}"
