"""Entries as lines of a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from live2diff_trt.benchmarks.counted_work import rates_of
from live2diff_trt.benchmarks.results_file import Entry
from live2diff_trt.benchmarks.timed import show_ms, who_of

_SHOWN = ("tb_per_s", "tflop_per_s", "launches", "source_interval_ms", "psnr_db", "ssim", "fell_bytes")


class PrintedRow(NamedTuple):
    """One entry.

    Attributes:
        figures: T, p50, p99, × of the limit and error, empty where there is none.
    """

    name: str
    who: str
    size: str
    notes: str
    figures: tuple[str, str, str, str, str]


def list_rows(entries: Sequence[Entry]) -> Iterator[PrintedRow]:
    """Return a line for every entry, in order."""
    rates = rates_of(entries)
    for entry in entries:
        limit_ms = None if rates is None else rates.shortest_ms(entry.notes)
        figures = (
            "" if entry.steps is None else str(entry.steps),
            "" if entry.p50_ms is None else show_ms(entry.p50_ms),
            "" if entry.p99_ms is None else show_ms(entry.p99_ms),
            "" if limit_ms is None or entry.p50_ms is None else f"{entry.p50_ms / limit_ms:.2f}",
            "" if entry.checked_error is None else f"{entry.checked_error:.1e}",
        )
        size = "" if entry.width is None else f"{entry.width}x{entry.height}"
        yield PrintedRow(entry.name, who_of(entry), size, _show_notes(entry.notes), figures)


def _show_notes(notes: dict[str, Any]) -> str:
    networks = [str(notes[name]) for name in ("autoencoder", "depth") if name in notes]
    return ", ".join([*networks, *(f"{name} {notes[name]}" for name in _SHOWN if name in notes)])
