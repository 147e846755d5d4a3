"""``docs/performance.md``: the newest results of each machine, in tables and plots; nothing in it is by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from live2diff_trt.benchmarks import page_prose, tables
from live2diff_trt.benchmarks.axes import find_axes, name_losses, tabulate_axis
from live2diff_trt.benchmarks.markdown import write_table
from live2diff_trt.benchmarks.page_sections import PageContext, describe_point, write_section
from live2diff_trt.benchmarks.provenance import repeat_command
from live2diff_trt.benchmarks.results_file import RESULTS_FOLDER, Entry, Results, ResultsError, read_results, slug
from live2diff_trt.benchmarks.speed_log import Step
from live2diff_trt.benchmarks.targets import tabulate_targets
from live2diff_trt.benchmarks.timed import Stream, find_streams, stream_of

PAGE = "performance.md"
PLOTS = "plots"


def find_newest(folder: Path = RESULTS_FOLDER) -> list[Results]:
    """Read the results in a folder (``<device>-<date>.json``) and return the newest of each device, by its name.

    Raises:
        ResultsError: there are none, or one can't be read.
    """
    found = [read_results(path) for path in sorted(folder.glob("*-????-??-??.json"))]
    if not found:
        raise ResultsError(
            f"{folder} holds no results", "Measure with `live2diff-trt bench suite`, or name their files"
        )
    return keep_newest(found)


def keep_newest(found: Sequence[Results]) -> list[Results]:
    """Return the newest results of each device: GPUs by their names, then processors."""
    newest = {results.device: results for results in sorted(found, key=lambda results: results.date)}
    return sorted(newest.values(), key=lambda results: (results.environment["gpu"] is None, results.device))


def write_page(found: Sequence[Results], steps: Sequence[Step], docs: Path) -> Path:
    """Write the page and its plots, each in place of the last one, and return the page's path."""
    from live2diff_trt.benchmarks.plots import draw_plots, save_plot

    drawn = {plot_name(results, name): figure for results in found for name, figure in draw_plots(results).items()}
    for left in (docs / PLOTS).glob("*.png"):
        if left.name not in drawn:
            left.unlink()
    for name, figure in drawn.items():
        save_plot(figure, docs / PLOTS / name)
    page = docs / PAGE
    page.write_text(render_page(found, steps, drawn.keys()), encoding="utf-8", newline="\n")
    return page


def plot_name(results: Results, name: str) -> str:
    """Return the name of a plot's file."""
    return f"{slug(results.device)}-{name}.png"


def render_page(found: Sequence[Results], steps: Sequence[Step], plots: Collection[str]) -> str:
    """Return the page's text; of the plots those are shown that are named."""
    blocks = [block for results in found for block in _describe_device(results, plots)]
    blocks += _describe_speed_log(steps)
    return "\n\n".join([page_prose.INTRODUCTION.strip(), *(block for block in blocks if block)]) + "\n"


def _describe_device(results: Results, plots: Collection[str]) -> Iterator[str]:
    yield f"## {results.device}"
    yield _describe_environment(results)
    yield _describe_not_run(results)
    limits = [entry for entry in results.entries if entry.steps is None]
    yield from write_section("", "", tables.tabulate_limits(results), results, limits)
    yield name_losses(results)
    streams = find_streams(results)
    for stream in streams[:1]:
        context = PageContext(results, stream, lambda name: _show_plot(results, name, plots))
        of_base = _timed_entries(results, [stream])
        targets = tabulate_targets(results, stream)
        yield from write_section(
            "Targets", page_prose.TARGETS.format(stream=stream), targets, results, of_base, level=3
        )
        yield f"### {stream}"
        yield from describe_point(context)
    yield from _describe_axes(results, plots)


def _describe_axes(results: Results, plots: Collection[str]) -> Iterator[str]:
    for axis in find_axes(results):
        entries = _timed_entries(results, axis.streams)
        table = tabulate_axis(results, axis)
        yield from write_section(axis.title, page_prose.AXIS, table, results, entries, level=3)
        yield _show_plot(results, axis.name, plots)


def _timed_entries(results: Results, streams: Sequence[Stream]) -> list[Entry]:
    return [entry for entry in results.entries if stream_of(entry) in streams and entry.samples > 1]


def _describe_environment(results: Results) -> str:
    environment, gpu = results.environment, results.environment["gpu"]
    graphics = (
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, driver {gpu['driver']}" if gpu else "none"
    )
    rows = {
        "GPU": graphics,
        "processor": f"{environment['processor']}, {environment['cores']} cores",
        "system": f"{environment['system']}, Python {environment['python']}",
        "live2diff-trt": environment["live2diff-trt"],
        "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        "clocks": "; ".join(
            f"{when} SM {clocks['sm_mhz']} MHz, memory {clocks['memory_mhz']} MHz, {clocks['temperature_c']} °C"
            for when in ("before", "after")
            if (clocks := environment[f"clocks_{when}"]) is not None
        ),
        "date": results.date,
        "every sample": f"`{RESULTS_FOLDER / results.file_name}`",
        "repeat it with": f"`{repeat_command(results)}`",
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items() if value)])


def _describe_not_run(results: Results) -> str:
    lines = [f"- {name}: {reason}" for name, reason in results.not_run.items()]
    return "\n".join([page_prose.NOT_RUN, "", *lines]) if lines else ""


def _describe_speed_log(steps: Sequence[Step]) -> list[str]:
    rows = [(step.title, step.prediction or "–", step.outcome, step.verdict, step.where) for step in steps]
    table = write_table(("what", "expected", "measured", "verdict", "where"), rows, names=5)
    return ["## What was tried for speed", page_prose.SPEED_LOG, table] if table else []


def _show_plot(results: Results, name: str, plots: Collection[str]) -> str:
    file_name = plot_name(results, name)
    return f"![{_ALTERNATIVES[name]}, {results.device}]({PLOTS}/{file_name})" if file_name in plots else ""


_ALTERNATIVES = {
    "unet": "UNet tick by backend",
    "tick": "where a tick's time goes",
    "latency": "how interval and latency of frames are distributed",
    "steps": "frames a second over T",
    "sizes": "frames a second over the size of the picture",
}
