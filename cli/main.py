"""Entry point: gathers the commands, and turns errors into one clear line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from live2diff_trt import __version__
from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.cli.bench import bench
from live2diff_trt.cli.build import build
from live2diff_trt.cli.conformance import conformance
from live2diff_trt.cli.console import messages, output, show_log
from live2diff_trt.cli.doctor import doctor
from live2diff_trt.cli.evaluate import evaluate
from live2diff_trt.cli.export import export
from live2diff_trt.cli.restyle import restyle
from live2diff_trt.cli.run import run
from live2diff_trt.cli.serve import serve

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""

app = typer.Typer(
    name="live2diff-trt",
    help="Real-time video translation with a causal video diffusion model: export, then run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(export)
app.command()(build)
app.command()(restyle)
app.command()(run)
app.command()(serve)
app.command()(evaluate)
app.command()(conformance)
app.command()(doctor)
app.add_typer(bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        output.print(f"live2diff-trt {__version__}")
        raise typer.Exit


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show everything that is logged.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Set up what every command needs."""
    show_log(verbose)


def main() -> None:
    """Run the command line; errors end it with their problem and remedy, without a traceback."""
    try:
        app()
    except Live2DiffError as error:
        messages.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        messages.print("interrupted")
        sys.exit(INTERRUPTED)
