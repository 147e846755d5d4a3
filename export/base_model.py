"""A Stable Diffusion model as it is published: a diffusers folder, or one file in the layout of the LDM code.

Both give their weights by diffusers' and transformers' keys. LDM is Rombach et al., arXiv 2112.10752.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig

from live2diff_trt.export.autoencoder import Autoencoder, build_autoencoder
from live2diff_trt.export.autoencoder_files import load_autoencoder_folder, load_autoencoder_weights
from live2diff_trt.export.checkpoint_file import read_tensors
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.model_files import BASE_STEMS, BaseNetwork
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.spatial_unet import build_spatial_unet, check_spatial_configuration
from live2diff_trt.export.text import build_text_encoder
from live2diff_trt.export.weights_files import FolderWeights, open_weights

_LDM_UNET = "model.diffusion_model."
_LDM_VAE = "first_stage_model."
_LDM_TEXT = "cond_stage_model.transformer."


class BaseModel(Protocol):
    """What both forms give."""

    def files(self, part: BaseNetwork) -> tuple[Path, ...]:
        """Return the files that a part is read from."""

    def unet_weights(self, preset: Preset) -> dict[str, Tensor]:
        """Return the spatial UNet by diffusers' keys."""

    def text_weights(self) -> dict[str, Tensor]:
        """Return the text encoder by transformers' keys, with or without ``text_model.``; empty if it has none."""

    def text_configuration(self, preset: Preset) -> CLIPTextConfig:
        """Return the shape of the text encoder."""

    def autoencoder(self) -> Autoencoder:
        """Return the autoencoder, float32."""


@dataclass(frozen=True)
class DiffusersFolder:
    """A folder that diffusers saved: unet/, vae/, text_encoder/, tokenizer/."""

    path: Path

    def files(self, part: BaseNetwork) -> tuple[Path, ...]:
        """Return the configuration and the weights of a part."""
        return self.path / part / "config.json", *self._open(part).files

    def unet_weights(self, preset: Preset) -> dict[str, Tensor]:
        """Return the spatial UNet; its config.json must be the preset's network."""
        configuration = self.path / "unet" / "config.json"
        check_spatial_configuration(_read_json(configuration), preset.unet, str(configuration))
        return self._open("unet").read()

    def text_weights(self) -> dict[str, Tensor]:
        """Return the text encoder."""
        return self._open("text_encoder").read()

    def text_configuration(self, preset: Preset) -> CLIPTextConfig:
        """Return the shape that the folder's config.json says."""
        configuration = CLIPTextConfig.from_dict(_read_json(self.path / "text_encoder" / "config.json"))
        if configuration.hidden_size != preset.unet.cross_attention_channels:
            raise CheckpointError(
                f"{self.path / 'text_encoder'} has {configuration.hidden_size} channels, "
                f"the UNet listens to {preset.unet.cross_attention_channels}",
                "Name a base model of the preset's sizes",
            )
        return configuration

    def autoencoder(self) -> Autoencoder:
        """Return the autoencoder, float32."""
        return load_autoencoder_folder(self.path / "vae")

    def _open(self, part: BaseNetwork) -> FolderWeights:
        return open_weights(self.path / part, BASE_STEMS[part])


@dataclass(frozen=True)
class LdmFile:
    """One .safetensors or .ckpt file. A base model, or a DreamBooth that replaces those parts that it has."""

    path: Path

    def files(self, part: BaseNetwork) -> tuple[Path, ...]:
        """Return the file, whatever the part."""
        return (self.path,)

    def unet_weights(self, preset: Preset) -> dict[str, Tensor]:
        """Return the spatial UNet."""
        weights = read_tensors(self.path, [_LDM_UNET])
        if not weights:
            raise CheckpointError(
                f"{self.path} has no key that begins with {_LDM_UNET}",
                "Name a single file of a whole model, or a diffusers folder",
            )
        converted: dict[str, Tensor] = convert_ldm_unet_checkpoint(weights, _configure_spatial_unet(preset))
        return converted

    def text_weights(self) -> dict[str, Tensor]:
        """Return the text encoder; empty if the file has none."""
        converted: dict[str, Tensor] = convert_ldm_clip_checkpoint(read_tensors(self.path, [_LDM_TEXT]))
        return converted

    def text_configuration(self, preset: Preset) -> CLIPTextConfig:
        """Return the preset's shape: the file does not say it."""
        with torch.device("meta"):
            return build_text_encoder(preset.text).config

    def autoencoder(self) -> Autoencoder:
        """Return Stable Diffusion's KL autoencoder with the file's weights, float32."""
        autoencoder = build_autoencoder("kl")
        load_autoencoder_weights(autoencoder, self.autoencoder_weights(autoencoder.config), str(self.path))
        return autoencoder

    def autoencoder_weights(self, configuration: Any) -> dict[str, Tensor]:
        """Return the autoencoder's weights by diffusers' keys; empty if the file has none."""
        weights = read_tensors(self.path, [_LDM_VAE])
        if not weights:
            return {}
        converted: dict[str, Tensor] = convert_ldm_vae_checkpoint(weights, configuration)
        return converted


def open_base_model(path: Path) -> DiffusersFolder | LdmFile:
    """Tell the two forms apart."""
    return DiffusersFolder(path) if path.is_dir() else LdmFile(path)


def _configure_spatial_unet(preset: Preset) -> Any:
    """Return diffusers' configuration of the preset's spatial UNet."""
    with torch.device("meta"):
        return build_spatial_unet(preset.unet).config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error})", "Name a folder that diffusers saved") from error
    return values
