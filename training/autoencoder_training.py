"""How the autoencoder is trained: pictures, styled pictures and structure maps, through a narrow latent and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.frame_structure import FrameStructure
from live2diff_trt.training.picture_loss import find_picture_loss
from live2diff_trt.training.spread_choice import choose_for_batch
from live2diff_trt.training.step_timer import StageClock
from live2diff_trt.training.styles import STYLES, apply_styles

_MOST_NOISE = 0.25
"""Deviation of the noise that latents bear in training, from none to this: a denoised one is never exact."""
_STRUCTURE_SHARE = 0.15
"""Of pictures: what is left is shared by the styles alike."""


class AutoencoderTask:
    """Draws pictures and says how far they come back from what they were."""

    def __init__(
        self, autoencoder: AutoencoderTiny, structure: FrameStructure, sampler: ClipSampler, pictures: int
    ) -> None:
        self._autoencoder = autoencoder
        self._structure = structure
        self._sampler = sampler
        self._pictures = pictures
        device = next(autoencoder.parameters()).device
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def draw(self, random: Random, clock: StageClock) -> Tensor:
        """Draw pictures, [pictures, 3, height, width] in [−1, 1]."""
        with clock.stage("sampling"):
            pictures = self._sampler.draw(random, self._pictures, 1)
        with clock.stage("filters"):
            return self._disguise(pictures, random)

    def find_losses(self, batch: Tensor, clock: StageClock) -> Mapping[str, Tensor]:
        """Return the losses of pictures."""
        with clock.stage("there and back"):
            with self._autocast:
                latents = self._autoencoder.encode(batch).latents.float()
                strength = _MOST_NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device)
                found = self._autoencoder.decode(latents + strength * torch.randn_like(latents)).sample.float()
            return {"picture": find_picture_loss(found, batch), "latents": 0.02 * _find_spread_loss(latents)}

    def _disguise(self, clips: Tensor, random: Random) -> Tensor:
        """Return pictures, [pictures, 3, height, width] in [−1, 1]: as they are, in a style, or their structure."""
        share = (1 - _STRUCTURE_SHARE) / len(STYLES)
        kinds = choose_for_batch(random, (*STYLES, None), [share] * len(STYLES) + [_STRUCTURE_SHARE], len(clips))
        styles = [kind for kind in kinds if kind is not None]
        plain = clips[len(styles) :] * 2 - 1
        parts: Sequence[Tensor] = [apply_styles(clips[: len(styles)], styles) * 2 - 1] if styles else []
        maps = [self._structure.as_pictures(plain, warm_up=0)] if len(plain) else []
        return torch.cat([*parts, *maps]).flatten(0, 1)


def _find_spread_loss(latents: Tensor) -> Tensor:
    """Return how far each channel is from mean 0 and deviation 1."""
    deviation, mean = torch.std_mean(latents, dim=(0, 2, 3))
    return mean.square().mean() + deviation.log().square().mean()
