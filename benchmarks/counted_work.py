"""How long what an entry counts would take at the rates its GPU was measured at: the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from live2diff_trt.benchmarks.results_file import Entry, Results


@dataclass(frozen=True)
class Rates:
    """What a device did at most in a run.

    Attributes:
        copy_tb_per_s: 10¹² bytes a second, read and written ones added.
        matmul_tflop_per_s: 10¹² operations a second.
        dtype: of the matrices.
    """

    copy_tb_per_s: float
    matmul_tflop_per_s: float
    dtype: str = "float16"

    def shortest_ms(self, notes: Mapping[str, Any]) -> float | None:
        """Return the milliseconds of what an entry's notes count: first computing, then moving, nothing overlapped.

        Counted are ``tflop``, ``cache_bytes`` (kv-caches read once) and ``bytes_read_and_written``; None without any.
        """
        if not notes.keys() & {"tflop", "cache_bytes", "bytes_read_and_written"}:
            return None
        return self.compute_ms(notes) + self.move_ms(notes)

    def compute_ms(self, notes: Mapping[str, Any]) -> float:
        """Return the milliseconds of the counted operations."""
        return float(notes.get("tflop", 0)) / self.matmul_tflop_per_s * 1000

    def move_ms(self, notes: Mapping[str, Any]) -> float:
        """Return the milliseconds of the counted bytes."""
        counted = notes.get("cache_bytes", 0) + notes.get("bytes_read_and_written", 0)
        return float(counted) / self.copy_tb_per_s / 1e9


def find_rates(results: Results) -> Rates | None:
    """Return the rates that a run measured."""
    return rates_of(results.entries)


def rates_of(entries: Sequence[Entry]) -> Rates | None:
    """Return the rates of ``kernel/copy`` and ``kernel/matmul``, or None where one was not measured."""
    notes = {entry.name: entry.notes for entry in entries}
    if "kernel/copy" not in notes or "kernel/matmul" not in notes:
        return None
    matmul = notes["kernel/matmul"]
    return Rates(notes["kernel/copy"]["tb_per_s"], matmul["tflop_per_s"], matmul.get("dtype", "float16"))


def find_limit_ms(results: Results, entry: Entry) -> float | None:
    """Return how long an entry's work takes at the run's rates; None if its work or the rates are not known."""
    rates = find_rates(results)
    return None if rates is None else rates.shortest_ms(entry.notes)
