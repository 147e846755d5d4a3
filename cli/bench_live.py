"""The commands of ``live2diff-trt bench`` that watch something run: a long stream, visitors of a served page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from live2diff_trt.cli.backend import choose_backend
from live2diff_trt.cli.backend_options import PlansOption
from live2diff_trt.cli.bench_extras import missing
from live2diff_trt.cli.choices import BackendChoice, PaceChoice
from live2diff_trt.cli.console import messages, output, read_size
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.sink import open_sink
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.stream import Stream

_LOOKS = 120
"""How often a soak looks at its memory."""


def soak(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="How long, from the first finished frame on.")] = 30.0,
    limit: Annotated[float, typer.Option("--limit-mb", help="How much memory may grow, in 10⁶ bytes.")] = 50.0,
    sink: Annotated[str, typer.Option("--output", "-o", help="Where frames go, as `run` names it.")] = "null",
    pace: Annotated[PaceChoice, typer.Option(help="As `run` has it.")] = PaceChoice.all,
    backend: Annotated[BackendChoice, typer.Option(help="Who computes, as `run` has it.")] = BackendChoice.auto,
    plans: PlansOption = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads inside one of ONNX Runtime's operators.")] = 0,
    record: Annotated[Path | None, typer.Option(help="JSON file for every sample.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file for memory over time.")] = None,
) -> None:
    """Stream the test pattern for a long time and watch the process's memory; exit 1 if it grows beyond the limit."""
    try:
        from live2diff_trt.benchmarks.plots import save_plot
        from live2diff_trt.benchmarks.soak import soak as watch
        from live2diff_trt.benchmarks.soak_record import draw_soak, write_soak
    except ImportError as error:
        raise missing(error, "bench") from error
    options = choose_backend(backend, bundle, OnnxRuntimeOptions(threads=threads), TensorRTOptions(plans=plans))
    with Stream.open(bundle, prompt="a watercolour painting", options=options) as stream:
        spec = stream.spec
        source = TestPatternSource(spec.width, spec.height)
        outgoing = open_sink(sink, width=spec.width, height=spec.height, frame_rate=source.frame_rate, overwrite=True)
        found = watch(
            stream,
            source,
            outgoing,
            pace.value,
            seconds=60 * minutes,
            interval=60 * minutes / _LOOKS,
            on_sample=lambda one: messages.print(
                f"[dim]{one.seconds:7.1f} s[/]  {one.frames} frames, {one.resident_mb:.1f} MB", highlight=False
            ),
        )
    grown = f"{found.growth_mb:+.1f} MB in {found.samples[-1].seconds / 60:.1f} minutes"
    output.print(f"{grown}, {found.samples[-1].frames} frames", highlight=False)
    if record is not None:
        write_soak(record, found, spec)
    if plot is not None:
        save_plot(draw_soak(found, spec, limit), plot)
    if found.growth_mb > limit:
        raise typer.Exit(1)


def visits(
    server: Annotated[str, typer.Argument(help="Address of a server that runs, as in http://127.0.0.1:8000.")],
    visitors: Annotated[int, typer.Option(min=1, help="How many are there at once.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long they stay, once all have pictures.")] = 20.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames that each sends a second.")] = 30.0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frames they send.")] = "640x480",
    token: Annotated[str | None, typer.Option(help="What the server wants.", envvar="LIVE2DIFF_TOKEN")] = None,
    record: Annotated[Path | None, typer.Option(help="JSON file for every latency.")] = None,
) -> None:
    """Visit a page that `serve` runs, by WebSocket and JPEG: how many pictures a second come back, and how late."""
    try:
        from live2diff_trt.benchmarks.record import write_record
        from live2diff_trt.benchmarks.visits import visit_together
    except ImportError as error:
        raise missing(error, "bench,serve") from error
    found = visit_together(server, visitors=visitors, seconds=seconds, rate=rate, size=read_size(size), token=token)
    table = Table("visitor", "frames sent a second", "pictures a second", "latency p50, ms", "p99, ms")
    for index, one in enumerate(found):
        rates = (one.sent / one.seconds, one.fps, one.percentile_ms(50), one.percentile_ms(99))
        table.add_row(str(index + 1), *(f"{figure:.1f}" for figure in rates))
    output.print(table)
    if record is not None:
        write_record(record, visits=[asdict(one) for one in found])
