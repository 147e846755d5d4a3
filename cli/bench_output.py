"""What ``live2diff-trt bench`` shows: results, and what two of them differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from live2diff_trt.cli.console import messages, output

if TYPE_CHECKING:
    from live2diff_trt.benchmarks.compare import Comparison, Difference, Pair
    from live2diff_trt.benchmarks.results_file import EntryKey, ResultsFile


def print_results(results: ResultsFile) -> None:
    """Show every entry in a line, with its time and how far it is from the limit, then what was not run."""
    from live2diff_trt.benchmarks.printed_results import list_lines, list_waits

    timed = [entry for entry in results.entries if not entry.name.startswith("control/")]
    waited = [entry for entry in results.entries if entry.name.startswith("control/")]
    for line in (*(list_lines(timed) if timed else ()), *list_waits(waited)):
        output.print(escape(line), soft_wrap=True, highlight=False)
    for name, reason in results.not_run.items():
        output.print(f"not run: {escape(name)}: {escape(reason)}", soft_wrap=True, highlight=False)


def show_comparison(comparison: Comparison, names: tuple[str, str], threshold: float) -> None:
    """Show what two results, A and B, differ in: every figure, what only one of them has, and where B is slower."""
    _warn_of_differences(comparison.differences)
    output.print(_tabulate(comparison, threshold))
    for name, keys in zip(names, (comparison.only_a, comparison.only_b), strict=True):
        for key in keys:
            output.print(f"only in {escape(name)}: {escape(_describe(key))}", soft_wrap=True, highlight=False)
    regressions = comparison.regressions(threshold)
    for pair in regressions:
        before, after, ratio = _show_times(pair)
        line = f"slower: {_describe(pair.key)}: {before} → {after} ms, × {ratio}"
        output.print(escape(line), soft_wrap=True, highlight=False)
    if not regressions:
        output.print(f"Nothing is slower by more than {100 * threshold:g} %.", soft_wrap=True, highlight=False)


def _warn_of_differences(differences: tuple[Difference, ...]) -> None:
    for what, before, after in differences:
        change = f"{what}: {before or 'none'} → {after or 'none'}"
        messages.print(f"[yellow]not the same conditions:[/] {escape(change)}", soft_wrap=True, highlight=False)


def _tabulate(comparison: Comparison, threshold: float) -> Table:
    table = Table(title="p50 in ms; a ratio above 1: B is slower")
    for header in ("name", "backend", "form", "size"):
        table.add_column(header, overflow="fold")
    for header in ("T", "A", "B", "ratio"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("")
    for pair in comparison.pairs:
        table.add_row(*_show_key(pair.key), *_show_times(pair), _mark(pair, threshold))
    return table


def _show_key(key: EntryKey) -> tuple[str, ...]:
    size = "" if key.width is None else f"{key.width}x{key.height}"
    return key.name, key.backend, key.form or "", size, "" if key.steps is None else str(key.steps)


def _show_times(pair: Pair) -> tuple[str, ...]:
    times = ("–" if ms is None else f"{ms:.3f}" for ms in (pair.a_ms, pair.b_ms))
    return *times, "–" if pair.ratio is None else f"{pair.ratio:.3f}"


def _mark(pair: Pair, threshold: float) -> str:
    return "[bold red]slower[/]" if pair.is_regression(threshold) else ""


def _describe(key: EntryKey) -> str:
    return " ".join(str(part) for part in key if part is not None)
