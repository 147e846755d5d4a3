"""The plots of the performance page, drawn from a results file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from live2diff_trt.benchmarks.counted_work import Stream, find_unet_limit_ms
from live2diff_trt.benchmarks.provenance import describe_run
from live2diff_trt.benchmarks.results_file import Results
from live2diff_trt.benchmarks.tables import PARTS_OF_ENTER, PARTS_OF_TICK
from live2diff_trt.benchmarks.timed import Timed, find_timed, show_ms

_WIDTH_INCHES = 8.0
_DOTS_PER_INCH = 100
_GREEN, _GREY = "#5b9a2f", "#9aa0a6"
_BLUES = ("#27436f", "#3f65a3", "#5f86c4", "#7898cf", "#adc3e6")
_COLOURS = ("#4c72b0", "#5b9a2f", "#dd8452", "#8172b3", "#c9b458")
_NARROWEST_LABELLED = 0.07
"""Part of an axis that a piece of a bar must fill to have its figure written into it."""


def draw_plots(results: Results, stream: Stream) -> dict[str, Figure]:
    """Return name → plot of everything about a stream that the results have the entries for."""
    plots = {"unet": draw_unet_ticks, "tick": draw_tick, "latency": draw_latency}
    return {name: figure for name, draw in plots.items() if (figure := draw(results, stream)) is not None}


def save_plot(figure: Figure, path: Path) -> None:
    """Write a plot as PNG; the same plot gives the same bytes with the same matplotlib."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})


def draw_unet_ticks(results: Results, stream: Stream) -> Figure | None:
    """Draw a bar for each backend, the fastest on top, and a line at the limit; None without entries."""
    ticks = sorted(find_timed(results, stream, "unet_tick"), key=lambda tick: -tick.p50_ms)
    if not ticks:
        return None
    figure, (axes,) = _make_figure(f"UNet tick, {stream}", results, ticks, rows=1, bars=len(ticks))
    colours = [_GREY if tick.entry.backend.startswith("torch") else _GREEN for tick in ticks]
    bars = axes.barh([tick.who for tick in ticks], [tick.p50_ms for tick in ticks], color=colours, height=0.65)
    axes.bar_label(bars, [f"{show_ms(tick.p50_ms)} ms" for tick in ticks], padding=4)
    axes.margins(x=0.14)
    limit_ms = find_unet_limit_ms(results, stream)
    if limit_ms is not None:
        axes.axvline(limit_ms, color="black", linestyle="--", linewidth=1, label=f"limit {show_ms(limit_ms)} ms")
        axes.legend(loc="upper right", frameon=False)
    axes.set_xlabel("milliseconds, median")
    return figure


def draw_tick(results: Results, stream: Stream) -> Figure | None:
    """Draw where a tick's time goes, and below where that of its first part goes; None without all three parts."""
    stages = find_timed(results, stream, "stage")
    backends = list(dict.fromkeys(stage.who for stage in stages))
    ms = {who: {stage.name: stage.p50_ms for stage in stages if stage.who == who} for who in backends}
    complete = {who: found for who, found in ms.items() if found.keys() >= set(PARTS_OF_TICK)}
    if not complete:
        return None
    drawn = [stage for stage in stages if stage.who in complete and stage.name in (*PARTS_OF_TICK, *PARTS_OF_ENTER)]
    title = f"Where a tick's time goes, {stream}"
    figure, (whole, entering) = _make_figure(title, results, drawn, rows=2, bars=2 * len(complete) + 2)
    _stack_bars(
        whole, {who: {part: found[part] for part in PARTS_OF_TICK} for who, found in complete.items()}, _COLOURS
    )
    whole.set_title("the tick", loc="left", fontsize=10)
    _stack_bars(entering, {who: _split_enter(found) for who, found in complete.items()}, _BLUES)
    entering.set_title("its part “enter”", loc="left", fontsize=10)
    entering.set_xlabel("milliseconds, median")
    return figure


def draw_latency(results: Results, stream: Stream) -> Figure | None:
    """Draw how the samples of interval and latency of a frame are distributed; None if neither was measured."""
    titles = {"frame": "interval between frames at saturation", "frame_latency": "latency of a frame"}
    measured = {name: timed for name in titles if (timed := find_timed(results, stream, name))}
    if not measured:
        return None
    drawn = [one for timed in measured.values() for one in timed]
    title = f"Whole frames, {stream}"
    figure, all_axes = _make_figure(title, results, drawn, rows=1, columns=len(measured), bars=7)
    for axes, (name, timed) in zip(all_axes, measured.items(), strict=True):
        _draw_histogram(axes, timed, titles[name])
    all_axes[0].set_ylabel("frames")
    return figure


def _split_enter(stages: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of ``enter`` that were timed, and what is left of it if anything is."""
    parts = {part: stages[part] for part in PARTS_OF_ENTER if part in stages}
    rest = stages["enter"] - sum(parts.values())
    return {**parts, "rest": rest} if rest > 0 else parts


def _stack_bars(axes: Axes, bars: Mapping[str, Mapping[str, float]], colours: Sequence[str]) -> None:
    """Draw a bar for each backend, of the given pieces in milliseconds; on the right, the pieces of all bars."""
    longest = max(sum(pieces.values()) for pieces in bars.values())
    names = list(dict.fromkeys(name for pieces in bars.values() for name in pieces))
    for place, pieces in enumerate(bars.values()):
        edges = np.cumsum([0.0, *pieces.values()])
        for (begin, end), (name, ms) in zip(pairwise(edges), pieces.items(), strict=True):
            axes.barh(place, end - begin, left=begin, color=colours[names.index(name)], height=0.6)
            if ms > _NARROWEST_LABELLED * longest:
                axes.text((begin + end) / 2, place, show_ms(ms), ha="center", va="center", color="white")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    labels = [
        f"{name}: {' / '.join(show_ms(pieces[name]) for pieces in bars.values() if name in pieces)}" for name in names
    ]
    handles = [Patch(color=colours[index], label=label) for index, label in enumerate(labels)]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set_xlim(0, longest * 1.02)


def _draw_histogram(axes: Axes, timed: Sequence[Timed], title: str) -> None:
    for index, one in enumerate(timed):
        colour = _COLOURS[index]
        label = f"{one.who}: p50 {show_ms(one.p50_ms)} ms, p99 {show_ms(one.p99_ms)} ms"
        axes.hist(one.entry.raw_ms, bins=30, color=colour, alpha=0.75, label=label)
        axes.axvline(one.p50_ms, color=colour, linestyle="-", linewidth=1)
        axes.axvline(one.p99_ms, color=colour, linestyle="--", linewidth=1)
    # Above the axes: inside them there is no place that is free whatever the distribution.
    axes.legend(title=title, loc="lower left", bbox_to_anchor=(0, 1), alignment="left", frameon=False, fontsize=9)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel("milliseconds (solid: p50, dashed: p99)")


def _make_figure(
    title: str, results: Results, drawn: Sequence[Timed], *, rows: int, bars: int, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return an empty plot that says what it shows and where that was measured, and its axes."""
    figure = Figure(figsize=(_WIDTH_INCHES, 1.4 + 0.45 * bars), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(describe_run(results, [one.entry for one in drawn], line_length=140), fontsize=7, color="#555555")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)
