"""``live2diff-trt conformance``: is the network the reference's network?"""

from __future__ import annotations

import json
import logging
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.cli.backend_options import FlavourOption
from live2diff_trt.cli.choices import DtypeChoice, FlavourChoice, FormChoice
from live2diff_trt.cli.console import output
from live2diff_trt.engine.tensorrt_options import TensorRTOptions

if TYPE_CHECKING:
    from live2diff_trt.conformance.run import ConformanceReport

logger = logging.getLogger(__name__)


class ReplayBackend(str, Enum):
    """The backends, as the command line names them."""

    torch = "torch"
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"


def conformance(
    folder: Annotated[Path, typer.Argument(help="Folder of goldens.")],
    steps: Annotated[int, typer.Option(help="T: which recording to replay.")],
    backend: Annotated[ReplayBackend, typer.Option(help="Who computes.")] = ReplayBackend.torch,
    tolerance: Annotated[float, typer.Option(help="Largest error that passes.")] = 1e-4,
    dtype: Annotated[
        DtypeChoice, typer.Option(help="Precision, of TensorRT only: the others compute in fp32.")
    ] = DtypeChoice.fp32,
    flavour: FlavourOption = FlavourChoice.auto,
    form: Annotated[FormChoice, typer.Option(help="Of TensorRT's plans.")] = FormChoice.in_segments,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows of TensorRT's plans; T.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay recorded runs of the reference network, in open and in closed loop; exit 1 above the tolerance."""
    from live2diff_trt.conformance.run import run_conformance

    started = time.perf_counter()
    if dtype is DtypeChoice.fp16 and backend is not ReplayBackend.tensorrt:
        raise SpecError(f"{backend.value} replays in fp32", "Leave --dtype out, or use --backend tensorrt")
    options = TensorRTOptions(flavour=flavour.value, form=form.value, rows=rows)
    report = run_conformance(folder, steps, backend.value, tolerance, dtype=dtype.float_name, options=options)
    logger.info("replayed in %.1f s", time.perf_counter() - started)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        output.print(_tabulate(report))
    if not report.passed:
        raise typer.Exit(1)


def _tabulate(report: ConformanceReport) -> Table:
    verdict = "passed" if report.passed else "FAILED"
    table = Table(
        "loop", "worst error", "of tensor", "worst relative", "compared",
        title=f"T = {report.steps}, {report.backend}: {verdict} at {report.tolerance:g}",
    )  # fmt: skip
    for name, replay in (("open", report.open_loop), ("closed", report.closed_loop)):
        worst, relative = replay.worst, replay.worst_relative.relative
        table.add_row(name, f"{worst.error:.2e}", worst.tensor, f"{relative:.2e}", str(len(replay.deviations)))
    return table
