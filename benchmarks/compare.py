"""Two results files side by side: what became slower, what only one has, and what else changed between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from live2diff_trt.benchmarks.results_file import Entry, EntryKey, Results, ResultsError

_MACHINE = ("processor", "cores", "system", "python", "live2diff-trt")


@dataclass(frozen=True)
class Pair:
    """One entry that both files have.

    Attributes:
        key: what was measured.
        a_ms, b_ms: medians; None where nothing was timed.
    """

    key: EntryKey
    a_ms: float | None
    b_ms: float | None

    @property
    def ratio(self) -> float | None:
        """B's time in A's times: above 1, B is slower. None where one was not timed."""
        return None if self.a_ms is None or self.b_ms is None else self.b_ms / self.a_ms

    def is_regression(self, threshold: float) -> bool:
        """Whether B is slower than A by more than ``threshold``, a part of A's time: 0.05 is 5 %."""
        return self.ratio is not None and self.ratio > 1 + threshold


class Difference(NamedTuple):
    """Something about the two runs that is not the same: a version, say. None: one of them does not have it."""

    what: str
    a: object
    b: object


@dataclass(frozen=True)
class Comparison:
    """What two files have in common, and what not.

    Attributes:
        pairs: the entries of both, in the order of A.
        only_a, only_b: the entries of one.
        differences: of GPU, driver, versions and machine: with any, a ratio is not the code's alone.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[EntryKey, ...]
    only_b: tuple[EntryKey, ...]
    differences: tuple[Difference, ...]

    def regressions(self, threshold: float) -> list[Pair]:
        """Return the pairs of which B is slower than A by more than ``threshold``, a part of A's time."""
        return [pair for pair in self.pairs if pair.is_regression(threshold)]


def compare(a: Results, b: Results) -> Comparison:
    """Pair the entries of two files; raise ResultsError where they have none in common."""
    of_a, of_b = _by_key(a), _by_key(b)
    pairs = tuple(Pair(key, entry.p50_ms, of_b[key].p50_ms) for key, entry in of_a.items() if key in of_b)
    if not pairs:
        raise ResultsError(
            f"{a.file_name} and {b.file_name} have no entry in common",
            "Compare runs of the same size, T, dtype and forms",
        )
    return Comparison(
        pairs,
        only_a=tuple(key for key in of_a if key not in of_b),
        only_b=tuple(key for key in of_b if key not in of_a),
        differences=tuple(_find_differences(_flatten(a.environment), _flatten(b.environment))),
    )


def _by_key(results: Results) -> dict[EntryKey, Entry]:
    return {entry.key: entry for entry in results.entries}


def _flatten(environment: Mapping[str, Any]) -> dict[str, object]:
    """Return what may change a figure, GPU and driver first; date and clocks are no conditions but readings."""
    gpu = {f"GPU's {name}": value for name, value in (environment["gpu"] or {}).items()}
    machine = {name: environment[name] for name in _MACHINE if name in environment}
    return {**gpu, **environment["versions"], **machine}


def _find_differences(a: Mapping[str, object], b: Mapping[str, object]) -> Iterator[Difference]:
    for what in {**a, **b}:
        if a.get(what) != b.get(what):
            yield Difference(what, a.get(what), b.get(what))
