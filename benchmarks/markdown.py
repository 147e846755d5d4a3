"""Tables and figures as Markdown has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """Return a table, its first ``names`` columns to the left and the others to the right; empty without rows."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"|{' --- |' * names}{' ---: |' * (len(header) - names)}"
    return "\n".join([f"| {' | '.join(header)} |", rule, *body]) if body else ""


def write_columns(columns: Mapping[str, Sequence[str]], *, names: int = 1) -> str:
    """Return a table of the columns that are not empty from top to bottom."""
    filled = {header: cells for header, cells in columns.items() if any(cells)}
    return write_table(list(filled), zip(*filled.values(), strict=True), names=min(names, len(filled)))


def show_share(part: float, whole: float | None) -> str:
    """Return a part of a whole in percent; nothing if there is no whole."""
    return "" if whole is None else f"{show_whole(100 * part / whole)} %"


def show_whole(amount: float) -> str:
    """Return an amount without digits behind the point."""
    return f"{amount:,.0f}" if amount >= 1 else "< 1"


def show_times(ratio: float | None) -> str:
    """Return how many times; nothing if that is not known."""
    return "" if ratio is None else f"{ratio:.2f}"


def show_error(error: float | None) -> str:
    """Return an error, or that there is none."""
    return "not checked" if error is None else f"{error:.1e}"
