"""A style delta from checkpoints: weights are loaded and merged as an export does, and nothing is traced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from live2diff_trt.bundle.errors import RestyleError
from live2diff_trt.bundle.manifest import PROMPT_PLACE, TOKENIZER_FILE, Bundle, Manifest
from live2diff_trt.bundle.style_delta import StyleDelta
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.engine.restyle import find_differences, refuse_misfits
from live2diff_trt.export.presets import PRESETS, Preset
from live2diff_trt.export.unet_graphs import OnStep
from live2diff_trt.export.weights_source import WeightsSource
from live2diff_trt.model.temporal_attention import TemporalAttention
from live2diff_trt.model.unet import CausalUNet

_OF_TEXT_ENCODER = "model."
"""What the names of the text encoder's initialisers begin with, and no name of the UNet's does."""
_WRAPPER = "text_model."
"""What transformers 4 has before every key of a text encoder, and transformers 5 has not."""
_LAYERS = "encoder.layers."


def find_preset(bundle: Bundle) -> Preset:
    """Return the preset that a bundle was exported from, for its stream; raise RestyleError if it is none of ours."""
    spec = bundle.spec
    for preset in PRESETS.values():
        if json.loads(json.dumps(preset.unet.to_json())) == bundle.manifest.network:
            return replace(preset, dtype=spec.dtype, width=spec.width, height=spec.height, step_list=spec.step_list)
    raise RestyleError(
        f"the network of {bundle.folder} is no preset's, so that it is not known how its weights are made",
        "Name a bundle that `live2diff-trt export` wrote",
    )


def make_style_delta(
    base: BundleInitialisers,
    weights: WeightsSource,
    *,
    clip_skip: int | None = None,
    on_step: OnStep = lambda _: None,
) -> StyleDelta:
    """Make every weight that a bundle would have, and return those that are not the bundle's.

    Args:
        base: of the bundle.
        weights: where they come from. Autoencoder and depth network are not asked for.
        clip_skip: layers to leave out at the end of the text encoder; None: as many as the bundle does.
        on_step: told what is done next, for a progress display.

    Raises:
        RestyleError: if the weights, the tokenizer or the clip skip are another network's than the bundle's.
        CheckpointError, WeightsError: as an export does.
    """
    bundle = base.bundle
    preset = find_preset(bundle)
    dtype = getattr(torch, bundle.spec.dtype)
    on_step("comparing the tokenizers")
    _refuse_another_tokenizer(weights.tokenizer(preset), bundle)
    on_step("making the text encoder")
    made = _make_text_initialisers(weights.text_encoder(preset, dtype), base, clip_skip)
    on_step("making the UNet")
    made |= make_unet_initialisers(weights.unet(preset, dtype), bundle.manifest)
    on_step("comparing with the bundle's weights")
    refuse_misfits(made, base, "the checkpoints")
    sources = {part: weights.describe(part) for part in ("unet", "text_encoder")}
    return StyleDelta(
        find_differences(base, made.__getitem__),
        bundle.digest,
        sources["text_encoder"].get("prompt_template", PROMPT_PLACE),
        sources,
    )


def make_unet_initialisers(unet: CausalUNet, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Make the initialisers of a bundle's UNet by the manifest's table.

    ``multiply_by_pe`` is what ``TemporalAttention.fold_positions`` made of the same sources.
    """
    state = unet.state_dict()
    made: dict[str, Tensor] = {}
    for name, entry in manifest.initialisers.items():
        made[name] = state[entry.sources[0]] if entry.recipe == "copy" else _find_table(unet, name)
    return {name: tensor.numpy() for name, tensor in made.items()}


def _find_table(unet: CausalUNet, name: str) -> Tensor:
    place, _, table = name.rpartition(".")
    attention = unet.get_submodule(place)
    if not isinstance(attention, TemporalAttention):
        raise RestyleError(f"{name} is no table of a temporal attention", "Export the bundle again")
    return attention.get_buffer(table)


def _make_text_initialisers(
    model: nn.Module, base: BundleInitialisers, clip_skip: int | None
) -> dict[str, NDArray[Any]]:
    """Return the weights of the text encoder's layers that the bundle has, by the bundle's names."""
    state = {key.removeprefix(_WRAPPER): tensor for key, tensor in model.state_dict().items()}
    named = {_bare(name): name for name in base.of_graph["text_encoder"]}
    _refuse_another_clip_skip(_count_layers(state), _count_layers(named), clip_skip)
    missing = sorted(named[key] for key in named.keys() - state.keys())
    if missing:
        raise RestyleError(
            f"the text encoder of the checkpoints lacks {', '.join(missing)}", "Use one of the bundle's kind"
        )
    return {name: state[key].numpy() for key, name in named.items()}


def _bare(name: str) -> str:
    return name.removeprefix(_OF_TEXT_ENCODER).removeprefix(_WRAPPER)


def _count_layers(names: Mapping[str, object]) -> int:
    numbers = [int(name.removeprefix(_LAYERS).partition(".")[0]) for name in names if name.startswith(_LAYERS)]
    return max(numbers, default=-1) + 1


def _refuse_another_clip_skip(layers: int, kept: int, clip_skip: int | None) -> None:
    if clip_skip is not None and layers - clip_skip != kept:
        raise RestyleError(
            f"the style leaves out {clip_skip} layers of the text encoder, the bundle {layers - kept}",
            f"Pass --clip-skip {layers - kept}, or export a bundle for this style",
        )


def _refuse_another_tokenizer(tokenizer: Tokenizer, bundle: Bundle) -> None:
    ours = Tokenizer.from_file(str(bundle.file(TOKENIZER_FILE)))
    if json.loads(tokenizer.to_str()) != json.loads(ours.to_str()):
        raise RestyleError(
            f"the style has another tokenizer than {bundle.folder}, or other textual inversions, and a style can't "
            "change what a prompt's tokens are",
            "Name the textual inversions that the bundle was exported with, or export a bundle for this style",
        )
