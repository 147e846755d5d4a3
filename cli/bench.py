"""``live2diff-trt bench``: measures a GPU, compares two results, and writes the performance page.

Whatever measures or draws is imported by the command that needs it: this file is part of every command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from live2diff_trt.bundle.errors import Live2DiffError, SpecError
from live2diff_trt.cli.choices import FormOption
from live2diff_trt.cli.console import messages, output
from live2diff_trt.cli.export import PresetChoice

if TYPE_CHECKING:
    from live2diff_trt.benchmarks.compare import Comparison, Difference, Pair
    from live2diff_trt.benchmarks.results_file import EntryKey

_RESULTS = Path("benchmarks/results")

bench = typer.Typer(help="Measure a GPU, compare two results, write the performance page.", no_args_is_help=True)


class BenchmarksMissingError(Live2DiffError):
    """A command needs what its extra installs."""


@bench.command()
def gpu(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle; its weights random.")],
    plans: Annotated[Path, typer.Option(help="Root of the plan store.")],
    preset: Annotated[PresetChoice, typer.Option(help="What the bundle was exported from.")] = PresetChoice.sd15,
    seed: Annotated[int, typer.Option(help="Of its random weights.")] = 0,
    forms: Annotated[str, typer.Option(help="Forms to measure, with commas between.")] = "split,whole",
    samples: Annotated[int, typer.Option(min=1, help="Samples of each figure.")] = 200,
    torch_rows: Annotated[bool, typer.Option(help="Whether PyTorch is measured beside.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = _RESULTS,
) -> None:
    """Measure PyTorch and TensorRT side by side, then whole frames, stages, kernels, start-up and memory."""
    known = _read_forms(forms)
    try:
        from live2diff_trt.benchmarks.bench_gpu import bench_gpu
    except ImportError as error:
        raise _missing(error, "export,tensorrt-rtx") from error
    path = bench_gpu(
        bundle,
        plans,
        preset=preset.value,
        seed=seed,
        forms=tuple(form.value for form in known),
        samples=samples,
        torch_rows=torch_rows,
        out=out,
    )
    output.print(str(path), soft_wrap=True, highlight=False)


@bench.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Results of before.", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="Results of after.", metavar="B.json")],
    threshold: Annotated[float, typer.Option(min=0, help="How much slower B may be: 0.05 is 5 %.")] = 0.05,
) -> None:
    """Compare the medians of two results; exit 1 if B is slower than A by more than the threshold."""
    from live2diff_trt.benchmarks.compare import compare as compare_results
    from live2diff_trt.benchmarks.results_file import read_results

    comparison = compare_results(read_results(a), read_results(b))
    _warn_of_differences(comparison.differences)
    output.print(_tabulate(comparison, threshold))
    for title, keys in ((a.name, comparison.only_a), (b.name, comparison.only_b)):
        for key in keys:
            output.print(f"only in {escape(title)}: {escape(_describe(key))}", soft_wrap=True, highlight=False)
    regressions = comparison.regressions(threshold)
    for pair in regressions:
        before, after, ratio = _show_times(pair)
        line = f"slower: {_describe(pair.key)}: {before} → {after} ms, × {ratio}"
        output.print(escape(line), soft_wrap=True, highlight=False)
    if not regressions:
        output.print(f"Nothing is slower by more than {100 * threshold:g} %.", soft_wrap=True, highlight=False)
    if regressions:
        raise typer.Exit(1)


@bench.command()
def page(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Results to show; those of --folder.", metavar="RESULTS.json"),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder of results: the newest of each GPU is shown.")] = _RESULTS,
    docs: Annotated[Path, typer.Option(help="Folder the page and its plots are written to.")] = Path("docs"),
) -> None:
    """Write performance.md and its plots from the newest results of each GPU. Run it in the repository's root."""
    from live2diff_trt.benchmarks.performance_page import find_newest, keep_newest, write_page
    from live2diff_trt.benchmarks.results_file import read_results

    found = keep_newest([read_results(path) for path in results]) if results else find_newest(folder)
    try:
        written = write_page(found, docs)
    except ImportError as error:
        raise _missing(error, "bench") from error
    output.print(str(written), soft_wrap=True, highlight=False)


def _read_forms(text: str) -> list[FormOption]:
    """Read a comma-separated list of forms and return them, the best first; raise SpecError if one is not known."""
    names = text.split(",")
    if not {*names} <= {form.value for form in FormOption}:
        known = ",".join(form.value for form in FormOption)
        raise SpecError(f"{text!r} names a form that is not known", f"Write some of {known}, with commas between")
    return [form for form in FormOption if form.value in names]


def _missing(error: ImportError, extras: str) -> BenchmarksMissingError:
    return BenchmarksMissingError(
        f"this needs a package that is not installed ({error})",
        f"Install it with `pip install live2diff-trt[{extras}]`",
    )


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
