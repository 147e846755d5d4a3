"""Entries as lines on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from live2diff_trt.benchmarks.counted_work import Rates, rates_of
from live2diff_trt.benchmarks.results_file import Entry
from live2diff_trt.benchmarks.timed import show_ms, who_of

_HEADER = ("name", "backend", "size", "T", "p50 ms", "p99 ms", "× limit", "error", "notes")
_FORM = "{:36} {:26} {:>9} {:>2} {:>10} {:>10} {:>8} {:>8}  {}"
_WAITS = "{:22} {:26} {:>2} {:10} {:>9} {:>9}  {}"
_SHOWN = ("tb_per_s", "tflop_per_s", "launches", "source_interval_ms", "psnr_db", "ssim", "fell_bytes")


def list_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Return a line for every entry, in order, below what the columns are."""
    rates = rates_of(entries)
    yield _FORM.format(*_HEADER)
    for entry in entries:
        yield _FORM.format(*_show(entry, rates)).rstrip()


def list_waits(entries: Sequence[Entry]) -> Iterator[str]:
    """Return a line for every part of a run that used all controls: its call, and which of its ticks waited."""
    if entries:
        yield _WAITS.format("control", "backend", "T", "guidance", "call ms", "usual ms", "ticks that waited, ms")
    for entry in entries:
        notes = entry.notes
        waits = ", ".join(f"{tick}: {wait_ms:.2f}" for tick, wait_ms in notes["waits_ms"].items()) or "none"
        times = (show_ms(notes[of]) for of in ("call_ms", "usual_ms"))
        name = entry.name.removeprefix("control/")
        yield _WAITS.format(name, who_of(entry), notes["t"], notes["guidance"], *times, waits)


def _show(entry: Entry, rates: Rates | None) -> tuple[str, ...]:
    limit_ms = None if rates is None else rates.shortest_ms(entry.notes)
    return (
        entry.name,
        who_of(entry),
        "" if entry.width is None else f"{entry.width}x{entry.height}",
        "" if entry.steps is None else str(entry.steps),
        "" if entry.p50_ms is None else show_ms(entry.p50_ms),
        "" if entry.p99_ms is None else show_ms(entry.p99_ms),
        "" if limit_ms is None or entry.p50_ms is None else f"{entry.p50_ms / limit_ms:.2f}",
        "" if entry.checked_error is None else f"{entry.checked_error:.1e}",
        _show_notes(entry.notes),
    )


def _show_notes(notes: dict[str, Any]) -> str:
    networks = [str(notes[name]) for name in ("autoencoder", "depth") if name in notes]
    return ", ".join([*networks, *(f"{name} {notes[name]}" for name in _SHOWN if name in notes)])
