"""The sections of the performance page about one point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from live2diff_trt.benchmarks import page_prose, tables
from live2diff_trt.benchmarks.axes import find_duel
from live2diff_trt.benchmarks.counted_work import find_limit_ms, find_rates
from live2diff_trt.benchmarks.provenance import describe_run
from live2diff_trt.benchmarks.results_file import Entry, Results
from live2diff_trt.benchmarks.timed import Stream, Timed, find_timed, show_ms, stream_of


@dataclass(frozen=True)
class PageContext:
    """What a section is written from.

    Attributes:
        results: of a machine.
        stream: what it is about.
        show_plot: a plot's name → the line that shows it; empty if there is none.
    """

    results: Results
    stream: Stream
    show_plot: Callable[[str], str]

    def find(self, name: str) -> list[Timed]:
        """Return what was timed of that name."""
        return find_timed(self.results, self.stream, name)

    def section(self, title: str, prose: str, table: str, entries: Sequence[Entry]) -> Iterator[str]:
        """Yield a section, or nothing if its table is empty."""
        return write_section(title, prose, table, self.results, entries)


def describe_point(context: PageContext) -> Iterator[str]:
    """Yield everything about a point; what was not measured has no section."""
    for section in (_unet, _frames, _latency, _stages, _kernels, _start_up, _memory, _quality):
        yield from section(context)


def write_section(
    title: str, prose: str, table: str, results: Results, entries: Sequence[Entry], *, level: int = 4
) -> Iterator[str]:
    """Yield title, prose, table and where its figures come from, or nothing if the table is empty."""
    if table:
        yield from (
            f"{'#' * level} {title}" if title else "",
            prose,
            table,
            f"<sub>{describe_run(results, entries)}</sub>",
        )


def _unet(context: PageContext) -> Iterator[str]:
    prose = page_prose.UNET.format(steps=context.stream.steps)
    ticks = context.find("unet_tick")
    yield from context.section(
        "UNet tick", prose, tables.tabulate_unet(context.results, context.stream), _entries(ticks)
    )
    yield _name_winner(context, "unet_tick", "the UNet's tick")
    yield _describe_limit(context.results, ticks)
    yield context.show_plot("unet")


def _frames(context: PageContext) -> Iterator[str]:
    table = tables.tabulate_frames(context.results, context.stream)
    yield from context.section("Whole frames", page_prose.FRAME, table, _entries(context.find("frame")))
    yield _name_winner(context, "frame", "whole frames")


def _latency(context: PageContext) -> Iterator[str]:
    late = context.find("frame_latency")
    paced = any("source_interval_ms" in one.entry.notes for one in late)
    prose = page_prose.LATENCY if paced else page_prose.LATENCY_AT_ONCE
    table = tables.tabulate_latency(context.results, context.stream)
    yield from context.section("Latency", prose, table, _entries(late))
    yield context.show_plot("latency")


def _stages(context: PageContext) -> Iterator[str]:
    inside, beside = tables.find_stages(context.results, context.stream)
    table = tables.tabulate_stages(context.results, inside)
    yield from context.section("Where a tick's time goes", page_prose.STAGES, table, _entries(inside))
    yield context.show_plot("tick")
    yield from context.section("Beside the tick", "", tables.tabulate_beside_tick(beside), _entries(beside))


def _kernels(context: PageContext) -> Iterator[str]:
    kernels = tables.find_kernels(context.results, context.stream)
    table = tables.tabulate_kernels(context.results, kernels)
    yield from context.section("Kernels", page_prose.KERNELS, table, _entries(kernels))


def _start_up(context: PageContext) -> Iterator[str]:
    table = tables.tabulate_start_up(context.results, context.stream)
    yield from context.section("Start-up", page_prose.START_UP, table, _entries(context.find("startup")))


def _memory(context: PageContext) -> Iterator[str]:
    for entry in _of_stream(context, "memory/session"):
        title = f"Memory, {entry.backend} {entry.form}"
        yield from context.section(title, page_prose.MEMORY, tables.tabulate_memory(entry), [entry])
        yield tables.tabulate_memory_parts(entry)


def _quality(context: PageContext) -> Iterator[str]:
    entries = _of_stream(context, "quality/")
    table = tables.tabulate_quality(entries)
    yield from context.section("Quality of what is not exact", page_prose.QUALITY, table, entries)


def _name_winner(context: PageContext, name: str, what: str) -> str:
    """Say who is faster, PyTorch or what it is set against, each at its best, and who is closer to float32."""
    duel = find_duel(context.results, context.stream, name)
    if duel.ours is None or duel.theirs is None:
        return ""
    best, other = sorted((duel.ours, duel.theirs), key=lambda one: one.p50_ms)
    ours = "TensorRT" if duel.ours.entry.backend.startswith("tensorrt") else "ONNX Runtime"
    text = (
        f"**{'PyTorch' if best.is_torch else ours} wins {what} here**: `{best.who}` takes {show_ms(best.p50_ms)} ms, "
        f"`{other.who}` {show_ms(other.p50_ms)} ms, {100 * (other.p50_ms / best.p50_ms - 1):.1f} % more."
    )
    if best.entry.checked_error is None or other.entry.checked_error is None:
        return text
    closer, farther = sorted((best, other), key=lambda one: one.entry.checked_error or 0)
    return (
        f"{text} Closer to float32 is `{closer.who}`: {closer.entry.checked_error:.1e} against "
        f"{farther.entry.checked_error:.1e}."
    )


def _describe_limit(results: Results, ticks: Sequence[Timed]) -> str:
    rates = find_rates(results)
    notes = ticks[0].entry.notes if ticks else {}
    limit_ms = find_limit_ms(results, ticks[0].entry) if ticks else None
    if rates is None or limit_ms is None:
        return ""
    return page_prose.LIMIT.format(
        limit=show_ms(limit_ms),
        tflop=notes["tflop"],
        compute=show_ms(rates.compute_ms(notes)),
        gigabytes=notes["cache_bytes"] / 1e9,
        move=show_ms(rates.move_ms(notes)),
    )


def _of_stream(context: PageContext, prefix: str) -> list[Entry]:
    found = context.results.entries
    return [entry for entry in found if entry.name.startswith(prefix) and stream_of(entry) == context.stream]


def _entries(timed: Sequence[Timed]) -> list[Entry]:
    return [one.entry for one in timed]
