"""How the autoencoder is trained: pictures, styled pictures and structure maps, through a narrow latent and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.frame_structure import FrameStructure
from live2diff_trt.training.styles import STYLES

_LATENT_NOISE = 0.1
"""Deviation of the noise that latents bear in training: a denoised one is never exact."""


class AutoencoderLoss:
    """Draws pictures and says how far they come back from what they were."""

    def __init__(
        self, autoencoder: AutoencoderTiny, structure: FrameStructure, sampler: ClipSampler, pictures: int
    ) -> None:
        self._autoencoder = autoencoder
        self._structure = structure
        self._sampler = sampler
        self._clips = pictures // 2

    def __call__(self) -> Mapping[str, Tensor]:
        """Return the losses of one batch."""
        pictures = self._draw_pictures()
        latents = self._autoencoder.encode(pictures).latents
        noisy = latents + _LATENT_NOISE * torch.randn_like(latents)
        difference = self._autoencoder.decode(noisy).sample - pictures
        return {
            "picture": difference.abs().mean() + difference.square().mean(),
            "edges": 0.5 * (difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()),
            "latents": 0.02 * _find_spread_loss(latents),
        }

    def _draw_pictures(self) -> Tensor:
        """Return pictures, [pictures, 3, height, width] in [−1, 1]: as they are, in a style, or their structure."""
        clips = self._sampler.draw(self._clips, 2)
        return torch.cat([self._disguise(clip) for clip in clips])

    def _disguise(self, clip: Tensor) -> Tensor:
        kind = self._sampler.random.random()
        if kind < 0.15:
            return self._structure.as_picture(clip * 2 - 1, together=True)
        if kind < 0.35:
            return clip * 2 - 1
        return self._sampler.random.choice(STYLES).apply(clip) * 2 - 1


def _find_spread_loss(latents: Tensor) -> Tensor:
    """Return how far each channel is from mean 0 and deviation 1, which the schedule's noise has."""
    deviation, mean = torch.std_mean(latents.float(), dim=(0, 2, 3))
    return mean.square().mean() + deviation.log().square().mean()
