"""``live2diff-trt export``: writes a bundle."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.bundle.schedule import ScheduleSpec, check_step_list
from live2diff_trt.bundle.spec import check_size
from live2diff_trt.cli.choices import DtypeChoice
from live2diff_trt.cli.console import messages, output, read_size, read_step_list

if TYPE_CHECKING:
    from live2diff_trt.export.check import GraphCheck
    from live2diff_trt.export.presets import Preset


class PresetChoice(str, Enum):
    """The presets, as the command line names them."""

    tiny = "tiny"
    sd15 = "sd15"


class VaeChoice(str, Enum):
    """The autoencoders, as the command line names them."""

    taesd = "taesd"
    kl = "kl"


class DepthChoice(str, Enum):
    """The depth networks, as the command line names them."""

    midas = "midas"
    depth_anything = "depth-anything"


class ExportExtraMissingError(Live2DiffError):
    """Exporting needs PyTorch and diffusers, which are not installed."""


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    preset: Annotated[PresetChoice, typer.Option(help="Which networks: all parts small, or the real sizes.")],
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the video, multiples of 64.")] = None,
    step_list: Annotated[str | None, typer.Option(help="Denoising steps, indices into LCM's 50, as in 30,40.")] = None,
    dtype: Annotated[DtypeChoice | None, typer.Option(help="Precision of weights, latents and caches.")] = None,
    vae: Annotated[VaeChoice | None, typer.Option(help="Another autoencoder than the preset's.")] = None,
    depth: Annotated[DepthChoice | None, typer.Option(help="Another depth network than the preset's.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Fill the networks from --seed, without a warning.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    check: Annotated[bool, typer.Option("--check", help="Run every graph by ONNX Runtime against PyTorch.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that exists.")] = False,
) -> None:
    """Write a self-describing bundle: ONNX graphs, weights, tokenizer, manifest."""
    changes = _read_changes(size, step_list, dtype)  # what can't be had is refused before heavy packages are imported
    wanted = replace(_choose_networks(preset, vae, depth), **changes)
    from live2diff_trt.export.bundle import export_bundle
    from live2diff_trt.export.weights_source import RandomWeights

    if not random_weights:
        messages.print(f"[yellow]No weights were named: they are random (seed {seed}), and the video will be noise.[/]")
    started = time.perf_counter()
    with messages.status("starting") as status:

        def show_step(step: str) -> None:
            messages.print(f"[dim]{time.perf_counter() - started:6.1f} s[/]  {step}")
            status.update(step)

        checks = export_bundle(wanted, RandomWeights(seed), out, overwrite=overwrite, check=check, on_step=show_step)
    if checks:
        output.print(_tabulate(checks))
    size_mb = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    output.print(f"{out}: {size_mb:,.0f} MB in {time.perf_counter() - started:.1f} s")


def _choose_networks(preset: PresetChoice, vae: VaeChoice | None, depth: DepthChoice | None) -> Preset:
    try:
        from live2diff_trt.export.presets import PRESETS
    except ImportError as error:
        raise ExportExtraMissingError(
            f"exporting needs a package that is not installed ({error})",
            "Install it with `pip install live2diff-trt[export]`",
        ) from error
    chosen = PRESETS[preset.value]
    if vae is not None:
        chosen = replace(chosen, autoencoder=vae.value)
    if depth is not None:
        chosen = replace(chosen, depth="dpt-hybrid" if depth is DepthChoice.midas else "depth-anything-small")
    return chosen


def _read_changes(size: str | None, step_list: str | None, dtype: DtypeChoice | None) -> dict[str, Any]:
    """Return the fields of the preset that the options change."""
    changes: dict[str, Any] = {}
    if size is not None:
        changes["width"], changes["height"] = read_size(size)
        check_size(changes["width"], changes["height"])
    if step_list is not None:
        changes["step_list"] = read_step_list(step_list)
        check_step_list(changes["step_list"], ScheduleSpec())
    if dtype is not None:
        changes["dtype"] = dtype.float_name
    return changes


def _tabulate(checks: list[GraphCheck]) -> Table:
    """Show the worst tensor of each graph."""
    table = Table("graph", "worst tensor", "error", "tolerance", title="ONNX Runtime against PyTorch")
    for graph in dict.fromkeys(check.graph for check in checks):
        worst = max((check for check in checks if check.graph == graph), key=lambda check: check.error)
        table.add_row(graph, worst.tensor, f"{worst.error:.2e}", f"{worst.tolerance:.0e}")
    return table
