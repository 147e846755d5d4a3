"""``docs/performance.md``: the newest results of each GPU, in tables and plots; nothing in it is by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from live2diff_trt.benchmarks import page_prose, tables
from live2diff_trt.benchmarks.counted_work import UNET_WORK, Stream, find_rates, find_unet_limit_ms
from live2diff_trt.benchmarks.provenance import describe_run, gpu_of, repeat_command
from live2diff_trt.benchmarks.results_file import RESULTS_FOLDER, Entry, Results, ResultsError, read_results, slug
from live2diff_trt.benchmarks.tables import ATTENTION, find_stages
from live2diff_trt.benchmarks.timed import Timed, find_streams, find_timed, show_ms

PAGE = "performance.md"
PLOTS = "plots"
_ALTERNATIVES = {
    "unet": "UNet tick by backend",
    "tick": "where a tick's time goes",
    "latency": "how interval and latency of frames are distributed",
}


def find_newest(folder: Path = RESULTS_FOLDER) -> list[Results]:
    """Read the results in a folder (``<gpu>-<date>.json``) and return the newest of each GPU, by the GPU's name.

    Raises:
        ResultsError: there are none, or one can't be read or is of a run without a GPU.
    """
    found = [read_results(path) for path in sorted(folder.glob("*-????-??-??.json"))]
    if not found:
        raise ResultsError(f"{folder} holds no results", "Measure with `live2diff-trt bench gpu`, or name their files")
    return keep_newest(found)


def keep_newest(found: Sequence[Results]) -> list[Results]:
    """Return the newest results of each GPU, by the GPU's name; raise ResultsError for a run without a GPU."""
    newest = {gpu_of(results)["name"]: results for results in sorted(found, key=lambda results: results.date)}
    return [newest[name] for name in sorted(newest)]


def write_page(found: Sequence[Results], docs: Path) -> Path:
    """Write the page and its plots, each in place of the last one, and return the page's path."""
    from live2diff_trt.benchmarks.plots import draw_plots, save_plot

    drawn = {
        plot_name(results, stream, name): figure
        for results in found
        for stream in find_streams(results)
        for name, figure in draw_plots(results, stream).items()
    }
    for name, figure in drawn.items():
        save_plot(figure, docs / PLOTS / name)
    page = docs / PAGE
    page.write_text(render_page(found, drawn.keys()), encoding="utf-8")
    return page


def plot_name(results: Results, stream: Stream, name: str) -> str:
    """Return the name of a plot's file."""
    size = f"{stream.width}x{stream.height}-t{stream.steps}-{stream.dtype}"
    return f"{slug(gpu_of(results)['name'])}-{size}-{name}.png"


def render_page(found: Sequence[Results], plots: Collection[str]) -> str:
    """Return the page's text; of the plots those are shown that are named."""
    blocks = [block for results in found for block in _describe_gpu(results, plots)]
    return "\n\n".join([page_prose.INTRODUCTION.strip(), *(block for block in blocks if block)]) + "\n"


def _describe_gpu(results: Results, plots: Collection[str]) -> Iterator[str]:
    yield f"## {gpu_of(results)['name']}"
    yield _describe_environment(results)
    yield from _section(
        "", "", tables.tabulate_limits(results), results, [entry for entry in results.entries if entry.steps is None]
    )
    for stream in find_streams(results):
        yield f"### {stream}"
        for section in (_unet, _frames, _stages, _attention, _start_up, _memory):
            yield from section(results, stream, plots)


def _describe_environment(results: Results) -> str:
    environment, gpu = results.environment, gpu_of(results)
    rows = {
        "GPU": f"{gpu['name']}, compute capability {gpu['compute_capability']}, driver {gpu['driver']}",
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
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _unet(results: Results, stream: Stream, plots: Collection[str]) -> Iterator[str]:
    ticks = find_timed(results, stream, "unet_tick")
    prose = page_prose.UNET.format(steps=stream.steps)
    yield from _section("UNet tick", prose, tables.tabulate_unet(results, stream), results, _entries(ticks))
    yield _name_the_winner(ticks)
    yield _describe_limit(results, stream) if ticks else ""
    yield _show_plot(results, stream, "unet", plots)


def _name_the_winner(ticks: Sequence[Timed]) -> str:
    """Say who is faster, PyTorch or TensorRT, each at its best, and who is closer to float32."""
    ours = [tick for tick in ticks if tick.entry.backend.startswith("tensorrt")]
    theirs = [tick for tick in ticks if tick.entry.backend.startswith("torch")]
    if not ours or not theirs:
        return ""
    best, other = sorted((min(ours, key=_p50), min(theirs, key=_p50)), key=_p50)
    winner = "PyTorch" if best.entry.backend.startswith("torch") else "TensorRT"
    text = (
        f"**{winner} wins the UNet's tick here**: `{best.who}` takes {show_ms(best.p50_ms)} ms, `{other.who}` "
        f"{show_ms(other.p50_ms)} ms, {100 * (other.p50_ms / best.p50_ms - 1):.1f} % more."
    )
    if best.entry.checked_error is None or other.entry.checked_error is None:
        return text
    closer, farther = sorted((best, other), key=lambda tick: tick.entry.checked_error or 0)
    return (
        f"{text} Closer to float32 is `{closer.who}`: {closer.entry.checked_error:.1e} against "
        f"{farther.entry.checked_error:.1e}."
    )


def _describe_limit(results: Results, stream: Stream) -> str:
    rates, work = find_rates(results), UNET_WORK.get(stream)
    limit_ms = find_unet_limit_ms(results, stream)
    if rates is None or work is None or limit_ms is None:
        return ""
    return page_prose.LIMIT.format(
        limit=show_ms(limit_ms),
        tflop=work.tflop,
        compute=show_ms(rates.compute_ms(work)),
        gigabytes=work.cache_bytes / 1e9,
        read=show_ms(rates.read_ms(work)),
        steps=stream.steps,
    )


def _frames(results: Results, stream: Stream, plots: Collection[str]) -> Iterator[str]:
    timed = find_timed(results, stream, "frame") + find_timed(results, stream, "frame_latency")
    late = {1: "by the call that took it", 2: "by the call after its own"}.get(
        stream.steps, f"{stream.steps - 1} calls after its own"
    )
    prose = page_prose.FRAME.format(late=late)
    yield from _section("Whole frame", prose, tables.tabulate_frames(results, stream), results, _entries(timed))
    yield _show_plot(results, stream, "latency", plots)


def _stages(results: Results, stream: Stream, plots: Collection[str]) -> Iterator[str]:
    inside, beside = find_stages(results, stream)
    table = tables.tabulate_stages(inside)
    yield from _section("Where a tick's time goes", page_prose.STAGES, table, results, _entries(inside))
    yield _show_plot(results, stream, "tick", plots)
    yield from _section("Beside the tick", "", tables.tabulate_beside_tick(beside), results, _entries(beside))


def _attention(results: Results, stream: Stream, _: Collection[str]) -> Iterator[str]:
    kernels = [entry for entry in _entries(find_timed(results, stream, "kernel")) if entry.name.startswith(ATTENTION)]
    table = tables.tabulate_attention(results, stream)
    yield from _section("Attention kernel", page_prose.ATTENTION, table, results, kernels)


def _start_up(results: Results, stream: Stream, _: Collection[str]) -> Iterator[str]:
    waits = _entries(find_timed(results, stream, "startup"))
    yield from _section("Start-up", page_prose.START_UP, tables.tabulate_start_up(results, stream), results, waits)


def _memory(results: Results, stream: Stream, _: Collection[str]) -> Iterator[str]:
    for entry in results.entries:
        if entry.name == "memory/session" and entry.key[3:] == stream:
            title = f"Memory, {entry.backend} {entry.form}"
            yield from _section(title, page_prose.MEMORY, tables.tabulate_memory(entry), results, [entry])
            yield tables.tabulate_memory_parts(entry)


def _section(title: str, prose: str, table: str, results: Results, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield title, prose, table and where its figures come from, or nothing if the table is empty."""
    if table:
        yield from (f"#### {title}" if title else "", prose, table, f"<sub>{describe_run(results, entries)}</sub>")


def _show_plot(results: Results, stream: Stream, name: str, plots: Collection[str]) -> str:
    file_name = plot_name(results, stream, name)
    return f"![{_ALTERNATIVES[name]}, {stream}]({PLOTS}/{file_name})" if file_name in plots else ""


def _entries(timed: Sequence[Timed]) -> list[Entry]:
    return [one.entry for one in timed]


def _p50(timed: Timed) -> float:
    return timed.p50_ms
