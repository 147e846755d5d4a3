"""Where the weights of a bundle come from. Each source fills the parts of a preset; the export asks no further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from tokenizers import Tokenizer
from torch import nn

from live2diff_trt.export.autoencoder import random_autoencoder
from live2diff_trt.export.depth import random_depth
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.text import random_text_encoder
from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import random_unet

Part = Literal["unet", "autoencoder", "depth", "text_encoder"]
PARTS: tuple[Part, ...] = ("unet", "autoencoder", "depth", "text_encoder")


class WeightsSource(Protocol):
    """Gives the networks of a preset with their weights, in evaluation mode, in the dtype asked for."""

    def describe(self, part: Part) -> dict[str, Any]:
        """Return what the manifest says of where the weights of a part came from."""

    def tokenizer(self, preset: Preset) -> Tokenizer:
        """The tokenizer that the text encoder was trained with; it neither pads nor truncates."""

    def unet(self, preset: Preset, dtype: torch.dtype) -> CausalUNet:
        """The causal UNet."""

    def autoencoder(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """An AutoencoderTiny or AutoencoderKL."""

    def depth(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """The depth network, as ``DepthGraph`` takes it."""

    def text_encoder(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """The text encoder, as ``TextEncoderGraph`` takes it."""


@dataclass(frozen=True)
class RandomWeights:
    """Weights made from a seed: they show how fast a stream is, and noise."""

    seed: int = 0

    def describe(self, part: Part) -> dict[str, Any]:
        """Return what the manifest says of where the weights of a part came from."""
        return {"source": "random", "seed": self.seed}

    def tokenizer(self, preset: Preset) -> Tokenizer:
        """A made-up tokenizer: random weights know no words."""
        return make_tokenizer(preset.text)

    def unet(self, preset: Preset, dtype: torch.dtype) -> CausalUNet:
        """The causal UNet."""
        return random_unet(preset.unet, self.seed, dtype)

    def autoencoder(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """An AutoencoderTiny or AutoencoderKL."""
        return random_autoencoder(preset.autoencoder, self.seed, dtype)

    def depth(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """The depth network, as ``DepthGraph`` takes it."""
        return random_depth(preset.depth, self.seed, dtype)

    def text_encoder(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """The text encoder, as ``TextEncoderGraph`` takes it."""
        return random_text_encoder(preset.text, self.seed, dtype)
