"""``live2diff-trt restyle``: writes what takes the place of a bundle's weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from live2diff_trt.bundle.errors import OutputExistsError
from live2diff_trt.bundle.style_delta import StyleDelta, write_style_delta
from live2diff_trt.cli.checkpoint_options import CheckpointOptions, LoraAlpha, OptionsError
from live2diff_trt.cli.console import messages, output
from live2diff_trt.cli.export import ExportExtraMissingError
from live2diff_trt.cli.weight_options import (
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
    from live2diff_trt.engine.initialisers import BundleInitialisers
    from live2diff_trt.export.weights_source import WeightsSource


def restyle(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the style, as STYLE.safetensors.")],
    from_bundle: Annotated[
        Path | None, typer.Option("--from", help="Another bundle, whose weights are wanted; instead of checkpoints.")
    ] = None,
    base: BaseOption = None,
    motion: MotionOption = None,
    dreambooth: DreamboothOption = None,
    lora: LorasOption = None,
    lcm_lora: LcmLoraOption = None,
    textual_inversion: TextualInversionsOption = None,
    lora_alpha: LoraAlphaOption = LoraAlpha.apply,
    clip_skip: ClipSkipOption = None,
    style: StyleOption = None,
    tokenizer: TokenizerOption = None,
    offline: OfflineOption = False,
    random_weights: RandomWeightsOption = False,
    seed: SeedOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a style that exists.")] = False,
) -> None:
    """Write a style: the weights of UNet and text encoder that differ from a bundle's, for a stream to change to."""
    names = CheckpointOptions(
        base, motion, dreambooth, lora, lcm_lora, textual_inversion, lora_alpha, style, tokenizer, offline
    )
    names.refuse_contradictions(random_weights)
    _need_one_source(names.any_named, random_weights, from_bundle is not None)
    if out.exists() and not overwrite:
        raise OutputExistsError(out)
    started = time.perf_counter()
    with messages.status("verifying the bundle") as status:
        initialisers = _open_initialisers(bundle)
        if from_bundle is not None:
            delta = _compare_with(initialisers, from_bundle)
        else:
            delta = _merge(initialisers, names, seed if random_weights else None, clip_skip, status.update)
        status.update("writing the style")
        write_style_delta(out, delta, overwrite=overwrite)
    changed, size_mb = len(delta.values), out.stat().st_size / 1e6
    output.print(
        f"{out}: {changed} of {len(initialisers.places)} weights, {size_mb:,.0f} MB "
        f"in {time.perf_counter() - started:.1f} s"
    )


def _need_one_source(checkpoints: bool, random_weights: bool, from_bundle: bool) -> None:
    if checkpoints + random_weights + from_bundle != 1:
        raise OptionsError(
            "a style is made from checkpoints, from another bundle, or from random weights",
            "Name --base and --motion, as for `export`, or --from BUNDLE, or --random-weights",
        )


def _open_initialisers(bundle: Path) -> BundleInitialisers:
    try:
        from live2diff_trt.engine.initialisers import BundleInitialisers
    except ImportError as error:
        raise _missing(error) from error
    return BundleInitialisers.open(bundle)


def _compare_with(initialisers: BundleInitialisers, other: Path) -> StyleDelta:
    from live2diff_trt.engine.initialisers import BundleInitialisers
    from live2diff_trt.engine.restyle import compare_bundles

    return compare_bundles(initialisers, BundleInitialisers.open(other))


def _merge(
    initialisers: BundleInitialisers,
    names: CheckpointOptions,
    seed: int | None,
    clip_skip: int | None,
    on_step: Callable[[str], None],
) -> StyleDelta:
    """Make the weights that are named, or random ones, and return what differs."""
    try:
        from live2diff_trt.export.restyle import make_style_delta
    except ImportError as error:
        raise _missing(error) from error
    weights, style_clip_skip = _find_weights(initialisers, names, seed)
    wanted = style_clip_skip if clip_skip is None else clip_skip
    return make_style_delta(initialisers, weights, clip_skip=wanted, on_step=on_step)


def _find_weights(
    initialisers: BundleInitialisers, names: CheckpointOptions, seed: int | None
) -> tuple[WeightsSource, int | None]:
    """Return the weights, and the clip skip of the YAML if there is one."""
    from live2diff_trt.export.checkpoint_names import check_unet_changes, locate_style
    from live2diff_trt.export.restyle import find_preset
    from live2diff_trt.export.style import read_style
    from live2diff_trt.export.weights_source import RandomWeights

    if seed is not None:
        return RandomWeights(seed), None
    style = None if names.style is None else read_style(names.style)
    if style is not None:
        check_unet_changes(find_preset(initialisers.bundle), style.unet_changes)
    weights = locate_style(names.name_checkpoints(style))
    return weights, None if style is None else style.clip_skip


def _missing(error: ImportError) -> ExportExtraMissingError:
    return ExportExtraMissingError(
        f"making a style needs a package that is not installed ({error})",
        "Install it with `pip install live2diff-trt[export]`",
    )
