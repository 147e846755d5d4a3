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
from live2diff_trt.bundle.schedule import ScheduleSpec
from live2diff_trt.bundle.spec import check_size
from live2diff_trt.cli.checkpoint_options import RANDOM_DEPTHS, RANDOM_VAES, CheckpointOptions, LoraAlpha
from live2diff_trt.cli.choices import DtypeChoice
from live2diff_trt.cli.console import messages, output, read_size
from live2diff_trt.cli.step_options import StepOptions, read_steps
from live2diff_trt.cli.weight_options import (
    MODEL,
    BaseOption,
    ClipSkipOption,
    DreamboothOption,
    LcmLoraOption,
    LoraAlphaOption,
    LorasOption,
    MotionOption,
    OfflineOption,
    RandomWeightsOption,
    SeedOption,
    StyleOption,
    TextualInversionsOption,
    TokenizerOption,
)

if TYPE_CHECKING:
    from live2diff_trt.export.check import GraphCheck
    from live2diff_trt.export.presets import Preset
    from live2diff_trt.export.weights_source import WeightsSource


class PresetChoice(str, Enum):
    """The presets, as the command line names them."""

    tiny = "tiny"
    sd15 = "sd15"


class ExportExtraMissingError(Live2DiffError):
    """Exporting needs PyTorch and diffusers, which are not installed."""


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")],
    preset: Annotated[PresetChoice, typer.Option(help="Which networks: all parts small, or the real sizes.")],
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the video, multiples of 64.")] = None,
    step_list: Annotated[str | None, typer.Option(help="Denoising steps, indices into LCM's 50, as in 30,40.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="Instead of a step list: as many steps as there were, 1 from pure noise.")
    ] = None,
    dtype: Annotated[DtypeChoice | None, typer.Option(help="Precision of weights, latents and caches.")] = None,
    base: BaseOption = None,
    motion: MotionOption = None,
    dreambooth: DreamboothOption = None,
    lora: LorasOption = None,
    lcm_lora: LcmLoraOption = None,
    textual_inversion: TextualInversionsOption = None,
    lora_alpha: LoraAlphaOption = LoraAlpha.apply,
    clip_skip: ClipSkipOption = None,
    style: StyleOption = None,
    vae: Annotated[str | None, typer.Option(help=f"Autoencoder: taesd, kl (the base's own), or {MODEL}.")] = None,
    depth: Annotated[str | None, typer.Option(help=f"Depth network: midas, depth-anything, or {MODEL}.")] = None,
    tokenizer: TokenizerOption = None,
    offline: OfflineOption = False,
    random_weights: RandomWeightsOption = False,
    seed: SeedOption = 0,
    check: Annotated[bool, typer.Option("--check", help="Run every graph by ONNX Runtime against PyTorch.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that exists.")] = False,
) -> None:
    """Write a self-describing bundle: ONNX graphs, weights, tokenizer, manifest."""
    # What can't be had is refused before heavy packages are imported.
    changes = _read_changes(size, dtype)
    steps = read_steps(step_list, strength)
    steps.check(ScheduleSpec())
    names = CheckpointOptions(
        base, motion, dreambooth, lora, lcm_lora, textual_inversion, lora_alpha, style, tokenizer, offline, vae, depth
    )
    names.refuse_contradictions(random_weights)
    chosen = _find_preset(preset)
    if names.any_named:
        chosen, weights, style_clip_skip = _find_checkpoints(names, chosen)
    elif preset is PresetChoice.tiny and not (random_weights or vae or depth):
        weights, style_clip_skip = _take_trained(), 0
    else:
        chosen, weights, style_clip_skip = _make_random(chosen, vae, depth, seed, warn=not random_weights)
    wanted = replace(chosen, step_list=steps.choose(chosen.step_list, ScheduleSpec()), **changes)
    from live2diff_trt.export.bundle import export_bundle

    started = time.perf_counter()
    with messages.status("starting") as status:

        def show_step(step: str) -> None:
            messages.print(f"[dim]{time.perf_counter() - started:6.1f} s[/]  {step}")
            status.update(step)

        checks = export_bundle(
            wanted,
            weights,
            out,
            clip_skip=style_clip_skip if clip_skip is None else clip_skip,
            overwrite=overwrite,
            check=check,
            on_step=show_step,
        )
    if checks:
        output.print(_tabulate(checks))
    size_mb = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    output.print(f"{out}: {size_mb:,.0f} MB in {time.perf_counter() - started:.1f} s")


def _find_preset(preset: PresetChoice) -> Preset:
    try:
        from live2diff_trt.export.presets import PRESETS
    except ImportError as error:
        raise ExportExtraMissingError(
            f"exporting needs a package that is not installed ({error})",
            "Install it with `pip install live2diff-trt[export]`",
        ) from error
    return PRESETS[preset.value]


def _take_trained() -> WeightsSource:
    """Return the weights that ship with the project."""
    from live2diff_trt.export.trained_weights import TrainedWeights

    return TrainedWeights()


def _make_random(
    preset: Preset, vae: str | None, depth: str | None, seed: int, *, warn: bool
) -> tuple[Preset, WeightsSource, int]:
    """Return the preset with other networks where they were asked for, random weights, and a clip skip of 0."""
    from live2diff_trt.export.weights_source import RandomWeights

    if warn:
        messages.print(f"[yellow]No weights were named: they are random (seed {seed}), and the video will be noise.[/]")
    if vae:
        preset = preset.with_autoencoder(RANDOM_VAES[vae])
    if depth:
        preset = replace(preset, depth=RANDOM_DEPTHS[depth])
    return preset, RandomWeights(seed), 0


def _find_checkpoints(options: CheckpointOptions, preset: Preset) -> tuple[Preset, WeightsSource, int]:
    """Return the preset as the style and the checkpoints change it, their weights, and the style's clip skip."""
    from live2diff_trt.export.checkpoint_names import check_unet_changes, locate_checkpoints
    from live2diff_trt.export.style import read_style

    style = None if options.style is None else read_style(options.style)
    if style is not None:
        check_unet_changes(preset, style.unet_changes)
        steps = StepOptions(style.step_list, style.strength)
        steps.check(ScheduleSpec())
        preset = replace(preset, step_list=steps.choose(preset.step_list, ScheduleSpec()))
    weights = locate_checkpoints(options.name_checkpoints(style), preset)
    if weights.lcm_lora is None:
        messages.print("[yellow]No --lcm-lora was named: few denoising steps need one.[/]")
    return weights.fit(preset), weights, 0 if style is None else style.clip_skip


def _read_changes(size: str | None, dtype: DtypeChoice | None) -> dict[str, Any]:
    """Return the fields of the preset that the options change."""
    changes: dict[str, Any] = {}
    if size is not None:
        changes["width"], changes["height"] = read_size(size)
        check_size(changes["width"], changes["height"])
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
