"""``live2diff-trt evaluate``: how steady an output is, and how true to the structure of its input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from live2diff_trt.cli.choices import ProviderChoice
from live2diff_trt.cli.console import messages, output
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.evaluation.errors import EvaluationError
from live2diff_trt.runtime.source import Source, open_source

if TYPE_CHECKING:
    from live2diff_trt.evaluation.depth_error import DepthComparison
    from live2diff_trt.evaluation.figures import Evaluation, FigureName

_ROWS: tuple[tuple[str, FigureName, FigureName | None], ...] = (
    ("warp error", "warp_error", "input_warp_error"),
    ("similarity of neighbours", "similarity", "input_similarity"),
    ("depth error", "depth_error", None),
)
"""What a row of the table is called, and which figures are the output's and the input's."""


def evaluate(
    source: Annotated[str, typer.Option("--input", "-i", help="The clip that went in: a file, a folder of pictures.")],
    result: Annotated[str, typer.Option("--output", "-o", help="The clip that came out.")],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", "-b", help="Folder of a bundle, whose depth network compares structure.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Compare no more than the first so many.")] = None,
    provider: Annotated[
        ProviderChoice, typer.Option(help="Where ONNX Runtime runs the depth network.")
    ] = ProviderChoice.cpu,
    threads: Annotated[int, typer.Option(min=0, help="Threads inside one of its operators; 0: one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the figures of every frame.")] = False,
) -> None:
    """Measure an output against its input: steadiness in time, and structure if a bundle is named."""
    _check_installed()
    depth = _open_depth(bundle, OnnxRuntimeOptions(provider=provider.value, threads=threads))
    with open_source(source) as before, open_source(result) as after:
        size = after.width, after.height
        evaluation = _evaluate(before, after, frames, depth)
    if as_json:
        clips = {"input": source, "output": result, "size": size}
        typer.echo(json.dumps({**clips, **_describe_bundle(depth), **evaluation.to_json()}))
    else:
        output.print(_tabulate(evaluation, size))


def _check_installed() -> None:
    """Raise EvaluationError if what follows motion is missing."""
    try:
        import live2diff_trt.evaluation.optical_flow  # noqa: F401 - the only one that needs OpenCV
    except ImportError as error:
        raise EvaluationError(
            f"comparing clips needs a package that is not installed ({error})",
            "Install it with `pip install live2diff-trt[evaluate]`",
        ) from error


def _open_depth(bundle: Path | None, options: OnnxRuntimeOptions) -> DepthComparison | None:
    """Open a bundle's depth network; without a bundle, say that structure is left out."""
    from live2diff_trt.evaluation.depth_error import DepthComparison

    if bundle is not None:
        return DepthComparison.open(bundle, options)
    notice = "[dim]structure is not compared: that takes a bundle's depth network; name one with --bundle[/]"
    messages.print(notice, soft_wrap=True, highlight=False)
    return None


def _evaluate(before: Source, after: Source, frames: int | None, depth: DepthComparison | None) -> Evaluation:
    """Go through both clips and show how far it is."""
    from live2diff_trt.evaluation.evaluate import evaluate_frames
    from live2diff_trt.evaluation.figures import Evaluation
    from live2diff_trt.evaluation.frame_pairs import count_pairs, pair_frames

    total = count_pairs(before, after, frames)
    columns = TextColumn("frame"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=messages) as progress:
        measured = evaluate_frames(pair_frames(before, after, frames), depth)
        return Evaluation(tuple(progress.track(measured, total=total)))


def _describe_bundle(depth: DepthComparison | None) -> dict[str, Any]:
    return {"bundle": None if depth is None else {"name": depth.bundle.folder.name, "digest": depth.bundle.digest}}


def _tabulate(evaluation: Evaluation, size: tuple[int, int]) -> Table:
    width, height = size
    table = Table("", "output", "worst", "input", title=f"{len(evaluation.frames)} frames, {width}x{height}")
    for row, of_output, of_input in _ROWS:
        worst = evaluation.worst(of_output)
        if worst is None:
            continue
        table.add_row(
            row,
            _show(evaluation.mean(of_output)),
            f"{_show(worst.value)} at frame {worst.frame}",
            "" if of_input is None else _show(evaluation.mean(of_input)),
        )
    followed = evaluation.mean("visible")
    lost = f"scene changes left out: {evaluation.lost}" if evaluation.lost else ""
    table.add_row("pixels followed", "" if followed is None else f"{followed:.0%}", lost)
    return table


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
