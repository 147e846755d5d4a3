"""The networks that are trained, on one device, and the way of footage through those that are not being trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from live2diff_trt.export.autoencoder import build_autoencoder
from live2diff_trt.export.presets import PROMPT_TOKENS, TINY, Preset
from live2diff_trt.export.text import TextEncoderGraph, build_text_encoder
from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.export.trained_weights import TrainedWeights
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.training.clip_pass import EncodedClips
from live2diff_trt.training.frame_structure import FrameStructure

Module = TypeVar("Module", bound=nn.Module)

SINK, WINDOW = TINY.unet.sink, TINY.unet.window
TWIN = replace(TINY, unet=replace(TINY.unet, motion=(False,) * len(TINY.unet.motion)))
"""The preset without temporal attention: a network that has nothing but its frame."""


@dataclass(frozen=True, eq=False)
class Networks:
    """What takes a clip and a prompt to a styled clip."""

    autoencoder: AutoencoderTiny
    unet: CausalUNet
    text_encoder: nn.Module
    structure: FrameStructure

    @classmethod
    def make(cls, preset: Preset, device: torch.device) -> Networks:
        """Return networks before training; their weights follow from PyTorch's seed."""
        unet = CausalUNet(preset.unet)
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.flow_conv_in.conv_out.weight)
        return cls(
            _lay_channels_last(build_autoencoder(preset.autoencoder).to(device)),
            _lay_channels_last(unet.to(device)),
            build_text_encoder(preset.text).to(device),
            FrameStructure().to(device),
        )

    @classmethod
    def load(
        cls, preset: Preset, weights: TrainedWeights, device: torch.device, shared: TrainedWeights | None = None
    ) -> Networks:
        """Load trained networks, float32, in evaluation mode; raises as ``TrainedWeights.unet`` does.

        ``shared`` has the autoencoder, where ``weights`` were trained with that of another folder.
        """
        return cls(
            (shared or weights).autoencoder(preset, torch.float32).to(device),
            weights.unet(preset, torch.float32).to(device),
            weights.text_encoder(preset, torch.float32).to(device),
            FrameStructure().to(device),
        )

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return text embeddings, [prompts, tokens, channels]."""
        return self.embed_tokens(tokenize(prompts).to(next(self.text_encoder.parameters()).device))

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings of token ids, [prompts, tokens] int64; gradients reach the text encoder."""
        (embeddings,) = TextEncoderGraph(self.text_encoder, clip_skip=0)((token_ids,))
        return embeddings

    @property
    def latent_deviation(self) -> float:
        """The deviation that latents have, as the UNet sees them: the autoencoder's own is near 1."""
        return float(self.autoencoder.config.scaling_factor)

    def latent_shape(self, clips: Tensor) -> tuple[int, int, int, int]:
        """Return the shape of the latents of clips, [clips, frames, 3, height, width], whose rows are their frames."""
        rows, (height, width) = clips.shape[0] * clips.shape[1], clips.shape[3:]
        scale = 2 ** (len(self.autoencoder.config.decoder_block_out_channels) - 1)
        return rows, int(self.autoencoder.config.latent_channels), height // scale, width // scale

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Map pictures in [−1, 1], [rows, 3, height, width], to latents, [rows, channels, height/8, width/8]."""
        return self.autoencoder.encode(pictures).latents.float() * self.latent_deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents back to pictures."""
        return self.autoencoder.decode(latents / self.latent_deviation).sample.float()

    def prepare(self, clips: Tensor) -> EncodedClips:
        """Encode clips and their structure as the stream does: warm-up maps are scaled together, later ones alone.

        Args:
            clips: [clips, frames, 3, height, width] in [−1, 1].
        """
        maps = self.structure.as_pictures(clips, warm_up=SINK)
        latents = self.encode(torch.cat([clips.flatten(0, 1), maps.flatten(0, 1)]))
        return EncodedClips(*latents.chunk(2))


def _lay_channels_last(module: Module) -> Module:
    """Lay a module's filters as convolutions are fastest; return the module."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it unannotated


_make_tokenizer = cache(make_tokenizer)


def tokenize(prompts: Sequence[str]) -> Tensor:
    """Return token ids, [prompts, tokens] int64, padded with the end token as ``runtime/prompt.py`` pads."""
    rows = [_make_tokenizer(TINY.text).encode(prompt).ids[:PROMPT_TOKENS] for prompt in prompts]
    return torch.tensor([ids + [ids[-1]] * (PROMPT_TOKENS - len(ids)) for ids in rows])
