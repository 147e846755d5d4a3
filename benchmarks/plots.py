"""The plots of the performance page, drawn from a results file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from live2diff_trt.benchmarks.axes import Axis, best_rates, find_axes, find_duel
from live2diff_trt.benchmarks.counted_work import find_limit_ms
from live2diff_trt.benchmarks.provenance import describe_run
from live2diff_trt.benchmarks.results_file import Entry, Results
from live2diff_trt.benchmarks.tables import PARTS_OF_ENTER, PARTS_OF_TICK
from live2diff_trt.benchmarks.timed import Stream, Timed, find_streams, find_timed, show_ms

_WIDTH_INCHES = 8.0
_DOTS_PER_INCH = 100
_GREEN, _GREY = "#5b9a2f", "#9aa0a6"
_BLUES = ("#27436f", "#3f65a3", "#5f86c4", "#7898cf", "#adc3e6")
_COLOURS = ("#4c72b0", "#5b9a2f", "#dd8452", "#8172b3", "#c9b458")
_BINS = 100
_NARROWEST_LABELLED = 0.07
"""Part of an axis that a piece of a bar must fill to have its figure written into it."""


def draw_plots(results: Results) -> dict[str, Figure]:
    """Return name → plot of everything that the results have the entries for: of the base point, and of the axes."""
    plots = {"unet": draw_unet_ticks, "tick": draw_tick, "latency": draw_latency}
    of_base = [(name, draw(results, stream)) for stream in find_streams(results)[:1] for name, draw in plots.items()]
    of_axes = [(axis.name, draw_axis(results, axis)) for axis in find_axes(results) if axis.name != "networks"]
    return {name: figure for name, figure in (*of_base, *of_axes) if figure is not None}


def save_plot(figure: Figure, path: Path) -> None:
    """Write a plot as PNG; the same plot gives the same bytes with the same matplotlib."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})


def draw_unet_ticks(results: Results, stream: Stream) -> Figure | None:
    """Draw a bar for each backend, the fastest on top, and a line at the limit; None without entries."""
    ticks = sorted(find_timed(results, stream, "unet_tick"), key=lambda tick: -tick.p50_ms)
    if not ticks:
        return None
    entries = [tick.entry for tick in ticks]
    figure, (axes,) = _make_figure(f"UNet tick, {stream}", results, entries, rows=1, bars=len(ticks))
    colours = [_GREY if tick.entry.backend.startswith("torch") else _GREEN for tick in ticks]
    bars = axes.barh([tick.who for tick in ticks], [tick.p50_ms for tick in ticks], color=colours, height=0.65)
    axes.bar_label(bars, [f"{show_ms(tick.p50_ms)} ms" for tick in ticks], padding=4)
    axes.margins(x=0.14)
    limit_ms = find_limit_ms(results, ticks[0].entry)
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
    names = (*PARTS_OF_TICK, *PARTS_OF_ENTER)
    drawn = [stage.entry for stage in stages if stage.who in complete and stage.name in names]
    title = f"Where a tick's time goes, {stream}"
    apart = {who: pieces for who, found in complete.items() if len(pieces := _split_enter(found)) > 1}
    figure, all_axes = _make_figure(title, results, drawn, rows=2 if apart else 1, bars=2 * len(complete) + 2)
    whole = all_axes[0]
    _stack_bars(
        whole, {who: {part: found[part] for part in PARTS_OF_TICK} for who, found in complete.items()}, _COLOURS
    )
    whole.set_title("the tick", loc="left", fontsize=10)
    for entering in all_axes[1:]:
        _stack_bars(entering, apart, _BLUES)
        entering.set_title("its part “enter”", loc="left", fontsize=10)
    all_axes[-1].set_xlabel("milliseconds, median")
    return figure


def draw_latency(results: Results, stream: Stream) -> Figure | None:
    """Draw how the samples of interval and latency of a frame are distributed; None if neither was measured."""
    titles = {"frame": "interval between frames at saturation", "frame_latency": "latency of a frame, slow source"}
    measured = {name: timed for name in titles if (timed := _without_outdone(find_timed(results, stream, name)))}
    if not measured:
        return None
    drawn = [one.entry for timed in measured.values() for one in timed]
    title = f"Whole frames, {stream}"
    figure, all_axes = _make_figure(title, results, drawn, rows=len(measured), bars=6 * len(measured))
    for axes, (name, timed) in zip(all_axes, measured.items(), strict=True):
        _draw_histogram(axes, timed, titles[name])
    all_axes[-1].set_xlabel("milliseconds (solid: p50, dashed: p99)")
    return figure


def draw_axis(results: Results, axis: Axis) -> Figure | None:
    """Draw frames a second along an axis: TensorRT, PyTorch and the limit; None where no frames were timed."""
    duels = [find_duel(results, stream, "frame") for stream in axis.streams]
    rates = best_rates(duels)
    entries = [one.entry for duel in duels for one in (duel.ours, duel.theirs) if one is not None]
    if not entries:
        return None
    title = f"Whole frames {axis.title[0].lower()}{axis.title[1:]}"
    figure, (axes,) = _make_figure(title, results, entries, rows=1, bars=7)
    places, ticks = _place_points(axis)
    for (name, found), style in zip(rates.items(), _styles(rates), strict=True):
        known = [(place, rate) for place, rate in zip(places, found, strict=True) if rate is not None]
        axes.plot(*zip(*known, strict=True), label=name, **style)
        for place, rate in known:
            above = rate >= max(other[places.index(place)] or 0 for who, other in rates.items() if who != "limit")
            offset = (0, 7 if above else -14)
            axes.annotate(f"{rate:.0f}", (place, rate), offset, textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(places, ticks)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.08, y=0.14)
    axes.set_ylabel("frames a second")
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.legend(loc="upper right", frameon=False)
    return figure


def _place_points(axis: Axis) -> tuple[list[float], list[str]]:
    """Return where an axis' points stand, and what is written there."""
    if axis.name == "steps":
        return [stream.steps for stream in axis.streams], [f"T = {stream.steps}" for stream in axis.streams]
    megapixels = [stream.width * stream.height / 1e6 for stream in axis.streams]
    sizes = [f"{stream.width}×{stream.height}" for stream in axis.streams]
    return megapixels, sizes


def _styles(rates: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return how each line is drawn: what is ours green, what is PyTorch's grey, the limit black and dashed."""
    drawn: list[dict[str, Any]] = []
    for name in rates:
        if name == "limit":
            drawn.append({"color": "black", "linestyle": "--", "linewidth": 1, "marker": "."})
        else:
            drawn.append({"color": _GREY if name.startswith("PyTorch") else _GREEN, "marker": "o", "linewidth": 2})
    return drawn


def _without_outdone(timed: Sequence[Timed]) -> list[Timed]:
    """Return the rows but those of PyTorch that are not its fastest: they would leave the others no room."""
    fastest = min((one.p50_ms for one in timed if one.is_torch), default=0.0)
    return [one for one in timed if not one.is_torch or one.p50_ms == fastest]


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
    samples = [sample for one in timed for sample in one.entry.raw_ms]
    bins = np.linspace(min(samples), max(samples), _BINS).tolist() if min(samples) < max(samples) else 1
    for index, one in enumerate(timed):
        colour = _COLOURS[index]
        label = f"{one.who}: p50 {show_ms(one.p50_ms)} ms, p99 {show_ms(one.p99_ms)} ms"
        axes.hist(one.entry.raw_ms, bins=bins, color=colour, alpha=0.75, label=label)
        axes.axvline(one.p50_ms, color=colour, linestyle="-", linewidth=1)
        axes.axvline(one.p99_ms, color=colour, linestyle="--", linewidth=1)
    # Above the axes: inside them there is no place that is free whatever the distribution.
    axes.legend(title=title, loc="lower left", bbox_to_anchor=(0, 1), alignment="left", frameon=False, fontsize=8)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_ylabel("frames")


def _make_figure(
    title: str, results: Results, drawn: Sequence[Entry], *, rows: int, bars: int
) -> tuple[Figure, list[Axes]]:
    """Return an empty plot that says what it shows and where that was measured, and its axes."""
    figure = Figure(figsize=(_WIDTH_INCHES, 1.4 + 0.45 * bars), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(describe_run(results, drawn, line_length=150), fontsize=7, color="#555555")
    grid = figure.subplots(rows, 1, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)
