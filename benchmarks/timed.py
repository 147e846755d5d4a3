"""What of a results file was timed, stream by stream: what tables and plots are made of."""

from __future__ import annotations

from typing import NamedTuple

from live2diff_trt.benchmarks.results_file import Entry, Results

_NETWORKS = {
    "taesd": "TAESD",
    "kl": "KL autoencoder",
    "dpt-hybrid": "DPT-Hybrid",
    "depth-anything-small": "Depth Anything",
}


class Stream(NamedTuple):
    """What is streamed: T, pixels and floating-point type; the kinds of the networks beside the UNet, where noted."""

    steps: int
    height: int
    width: int
    dtype: str
    autoencoder: str | None = None
    depth: str | None = None

    def __str__(self) -> str:
        named = [self.networks] if self.networks else []
        return ", ".join([f"{self.width}×{self.height}", f"T = {self.steps}", *named, self.dtype])

    @property
    def networks(self) -> str:
        """The networks beside the UNet; empty where they were not noted."""
        named = [_NETWORKS.get(kind, f"{kind} networks") for kind in (self.autoencoder, self.depth) if kind]
        return ", ".join(dict.fromkeys(named))

    @property
    def slug(self) -> str:
        """The same as a part of a file's name."""
        networks = [kind for kind in (self.autoencoder, self.depth) if kind]
        return "-".join([f"{self.width}x{self.height}", f"t{self.steps}", *networks, self.dtype])


class Timed(NamedTuple):
    """An entry that was timed: its last name (``stage/enter`` → ``enter``), who did it, and how long it took."""

    entry: Entry
    name: str
    who: str
    p50_ms: float
    p99_ms: float

    @property
    def is_torch(self) -> bool:
        """Whether PyTorch did it."""
        return self.entry.backend.startswith("torch")


def find_streams(results: Results) -> list[Stream]:
    """Return what was streamed, in the order in which it was measured: the base point first."""
    return list(dict.fromkeys(stream for entry in results.entries if (stream := stream_of(entry)) is not None))


def find_timed(results: Results, stream: Stream, prefix: str) -> list[Timed]:
    """Return the entries of a stream that were timed and whose name is ``prefix``, or begins with it and a slash."""
    return [
        Timed(entry, entry.name.rpartition("/")[2], who_of(entry), *times)
        for entry in results.entries
        if stream_of(entry) == stream and (entry.name == prefix or entry.name.startswith(f"{prefix}/"))
        if (times := _times_of(entry)) is not None
    ]


def find_best(timed: list[Timed], *, torch: bool) -> Timed | None:
    """Return the fastest of PyTorch's rows, or of all others; None where there are none."""
    return min((one for one in timed if one.is_torch == torch), key=lambda one: one.p50_ms, default=None)


def who_of(entry: Entry) -> str:
    """Return backend and form."""
    return " ".join(filter(None, (entry.backend, entry.form)))


def show_ms(ms: float) -> str:
    """Return milliseconds with the digits that mean something."""
    return f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def stream_of(entry: Entry) -> Stream | None:
    """Return what an entry streamed; None where there was no stream."""
    if entry.steps is None or entry.height is None or entry.width is None or entry.dtype is None:
        return None
    return Stream(
        entry.steps, entry.height, entry.width, entry.dtype, entry.notes.get("autoencoder"), entry.notes.get("depth")
    )


def _times_of(entry: Entry) -> tuple[float, float] | None:
    return None if entry.p50_ms is None or entry.p99_ms is None else (entry.p50_ms, entry.p99_ms)
