"""From the names of models, as people give them, to files on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from live2diff_trt.export.checkpoint_file import find_only_weights_file
from live2diff_trt.export.checkpoints import CheckpointWeights, NamedInversion, ScaledLora
from live2diff_trt.export.errors import CheckpointError, StyleError
from live2diff_trt.export.locate import Located, locate
from live2diff_trt.export.model_files import BaseNetwork, choose_base, choose_network, choose_single
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.spatial_unet import build_spatial_unet
from live2diff_trt.export.text_files import choose_tokenizer
from live2diff_trt.export.weights_files import DIFFUSERS, TRANSFORMERS
from live2diff_trt.model.configuration import UNetConfiguration

_TAESD = "madebyollin/taesd"
_DEPTH_MODELS = {"midas": "Intel/dpt-hybrid-midas", "depth-anything": "LiheYoung/depth-anything-small-hf"}
_PRESET_DEPTH = {"dpt-hybrid": "midas", "depth-anything-small": "depth-anything"}
_CLIP = "openai/clip-vit-large-patch14"


@dataclass(frozen=True)
class CheckpointNames:
    """Models by path or hub id.

    Attributes:
        base, motion, dreambooth, lcm_lora, tokenizer: models.
        vae: a model, ``taesd``, or ``kl``, which is the base's own; None: the preset's.
        depth: a model, ``midas`` or ``depth-anything``; None: the preset's.
        loras: (model, scale), in the order of merging.
        textual_inversions: (model, token), in the order of their ids; None: the token that the file names.
        apply_lora_alpha: False merges style LoRAs as ``W += scale · up · down``.
        offline: contact nobody.
        prompt_template: what a prompt is put into.
    """

    base: str
    motion: str
    vae: str | None = None
    depth: str | None = None
    dreambooth: str | None = None
    loras: tuple[tuple[str, float], ...] = ()
    lcm_lora: str | None = None
    textual_inversions: tuple[tuple[str, str | None], ...] = ()
    tokenizer: str | None = None
    apply_lora_alpha: bool = True
    offline: bool = False
    prompt_template: str | None = None


def locate_checkpoints(names: CheckpointNames, preset: Preset) -> CheckpointWeights:
    """Find every model before the first is loaded; raise CheckpointError at the first that can't be had."""
    offline = names.offline
    return replace(
        locate_style(names, own_autoencoder=_choose_autoencoder(names, preset) is None),
        depth_model=locate(
            _choose_depth(names, preset), "depth network", offline=offline, choose=choose_network(TRANSFORMERS)
        ),
        autoencoder_model=_locate_autoencoder(names, preset),
    )


def locate_style(names: CheckpointNames, *, own_autoencoder: bool = False) -> CheckpointWeights:
    """Find what UNet and text encoder are made of, as ``locate_checkpoints`` does.

    Args:
        names: of all models; those of autoencoder and depth network are not looked at.
        own_autoencoder: whether the base model's autoencoder is needed, too.
    """
    offline = names.offline
    needed: tuple[BaseNetwork, ...] = ("unet", "text_encoder", *(("vae",) if own_autoencoder else ()))
    base = locate(
        names.base, "base model", offline=offline, choose=choose_base(needed, tokenizer=names.tokenizer is None)
    )
    return CheckpointWeights(
        base=base,
        motion=_locate_file(names.motion, "motion checkpoint", offline),
        depth_model=None,
        tokenizer_folder=_locate_tokenizer(names, base),
        dreambooth=None if names.dreambooth is None else _locate_file(names.dreambooth, "DreamBooth", offline),
        loras=tuple(
            ScaledLora(_locate_file(model, "LoRA", offline), scale, names.apply_lora_alpha)
            for model, scale in names.loras
        ),
        lcm_lora=None if names.lcm_lora is None else _locate_file(names.lcm_lora, "LCM-LoRA", offline),
        textual_inversions=tuple(
            NamedInversion(_locate_file(model, "textual inversion", offline), token)
            for model, token in names.textual_inversions
        ),
        prompt_template=names.prompt_template,
    )


def check_unet_changes(preset: Preset, changes: Mapping[str, Any]) -> None:
    """Raise StyleError or ConfigurationError if ``unet_additional_kwargs`` ask for another network than the preset."""
    with torch.device("meta"):
        spatial = dict(build_spatial_unet(preset.unet).config)
    if changes and UNetConfiguration.from_reference(spatial, changes) != preset.unet:
        raise StyleError(
            "the style's unet_additional_kwargs ask for another network than the preset's", "Choose the fitting preset"
        )


def _locate_file(name: str, what: str, offline: bool) -> Located:
    found = locate(name, what, offline=offline, choose=choose_single)
    return Located(found.source, find_only_weights_file(found.path))


def _locate_autoencoder(names: CheckpointNames, preset: Preset) -> Located | None:
    """Return None for the base's own."""
    name = _choose_autoencoder(names, preset)
    if name is None:
        return None
    return locate(name, "autoencoder", offline=names.offline, choose=choose_network(DIFFUSERS))


def _choose_autoencoder(names: CheckpointNames, preset: Preset) -> str | None:
    """Return its path or hub id, or None for the base's own."""
    name = names.vae or ("taesd" if preset.autoencoder == "taesd" else "kl")
    return {"kl": None, "taesd": _TAESD}.get(name, name)


def _choose_depth(names: CheckpointNames, preset: Preset) -> str:
    name = names.depth or _PRESET_DEPTH.get(preset.depth)
    if name is None:
        raise CheckpointError(
            "nobody published weights for this preset's depth network", "Name one: --depth midas or --depth FOLDER"
        )
    return _DEPTH_MODELS.get(name, name)


def _locate_tokenizer(names: CheckpointNames, base: Located) -> Located:
    if names.tokenizer is None and base.path.is_dir():
        return Located(base.source, base.path / "tokenizer")
    return locate(names.tokenizer or _CLIP, "tokenizer", offline=names.offline, choose=choose_tokenizer)
