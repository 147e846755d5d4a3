"""What of a results file was timed, stream by stream: what tables and plots are made of."""

from __future__ import annotations

from typing import NamedTuple

from live2diff_trt.benchmarks.counted_work import Stream
from live2diff_trt.benchmarks.results_file import Entry, Results


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


def show_ms(ms: float) -> str:
    """Return milliseconds with the digits that mean something."""
    return f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def _stream_of(entry: Entry) -> Stream | None:
    if entry.steps is None or entry.height is None or entry.width is None or entry.dtype is None:
        return None
    return Stream(entry.steps, entry.height, entry.width, entry.dtype)


def _times_of(entry: Entry) -> tuple[float, float] | None:
    return None if entry.p50_ms is None or entry.p99_ms is None else (entry.p50_ms, entry.p99_ms)
