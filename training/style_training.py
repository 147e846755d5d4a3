"""How the UNet and the text encoder are trained: clips of warm-up and rolling frames, from noise to a style."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import torch
from torch import Tensor

from live2diff_trt.bundle.schedule import ScheduleSpec, spread_steps
from live2diff_trt.training.clip_attention import see_clip
from live2diff_trt.training.clip_pass import denoise_clips
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.compiled import RunUNet
from live2diff_trt.training.networks import SINK, WINDOW, Networks
from live2diff_trt.training.picture_loss import find_picture_loss
from live2diff_trt.training.spread_choice import choose_for_batch
from live2diff_trt.training.step_timer import StageClock
from live2diff_trt.training.styles import STYLES, apply_styles, draw_prompt

_USUAL_STRENGTH = 0.4
"""The preset's own step list, (30, 40), has it."""
_PICTURES = 4
"""Frames of a clip that are decoded, and compared as pictures."""
_PICTURE_WEIGHT, _STEADINESS_WEIGHT = 2.0, 0.5
"""Beside the distance of latents."""


def draw_step_list(random: Random) -> tuple[int, ...]:
    """Draw a step list of 1 to 4 steps, mostly 2, from those that strengths of 0.25 to 0.7 give, mostly 0.4."""
    steps = random.choice((1, 2, 2, 2, 3, 4))
    strength = _USUAL_STRENGTH if random.random() < 0.6 else random.uniform(0.25, 0.7)
    return spread_steps(strength, steps, ScheduleSpec())


class StyleLoss:
    """Draws clips and says how far the network arrives from their style.

    Args:
        run_unet: the UNet of ``networks``, or the same compiled.
    """

    def __init__(
        self, networks: Networks, sampler: ClipSampler, clips: int, frames: int, run_unet: RunUNet | None = None
    ) -> None:
        self._networks = networks
        self._run_unet = run_unet
        self._sampler = sampler
        self._size = clips, frames
        device = next(networks.unet.parameters()).device
        self._view = see_clip(frames, WINDOW, SINK).to(device)
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def __call__(self, random: Random, clock: StageClock) -> Mapping[str, Tensor]:
        """Return the losses of one batch: of latents and their steadiness in all steps, of pictures in the last."""
        with clock.stage("sampling"):
            clips = self._sampler.draw(random, *self._size)
        with clock.stage("filters"):
            styles = choose_for_batch(random, STYLES, [1.0] * len(STYLES), len(clips))
            wanted = apply_styles(clips, styles) * 2 - 1
        with clock.stage("text"):
            embeddings = self._networks.embed_prompts([draw_prompt(style, random) for style in styles])
        with self._autocast, clock.stage("encode"):
            encoded = self._networks.prepare(clips * 2 - 1)
            target = self._networks.encode(wanted.flatten(0, 1))
        with self._autocast, clock.stage("unet"):
            step_list = draw_step_list(random)
            noise = [torch.randn_like(target) for _ in step_list]
            network = self._networks.unet
            found = [
                *denoise_clips(network, encoded, embeddings, self._view, step_list, noise, run_unet=self._run_unet)
            ]
        errors = (torch.stack(found) - target) / self._networks.latent_deviation
        steadiness = errors.unflatten(1, self._size).diff(dim=2).abs().mean()
        latents = errors.abs().mean() + 0.5 * errors.square().mean()
        with clock.stage("pictures"):
            pictures = self._compare_pictures(found[-1], wanted, random)
        return {
            "latents": latents,
            "steadiness": _STEADINESS_WEIGHT * steadiness,
            "pictures": _PICTURE_WEIGHT * pictures,
        }

    def _compare_pictures(self, clean: Tensor, wanted: Tensor, random: Random) -> Tensor:
        """Decode the same few frames of every clip, and compare them."""
        chosen = random.sample(range(self._size[1]), _PICTURES)
        latents = clean.unflatten(0, self._size)
        with self._autocast:
            pictures = self._networks.decode(torch.cat([latents[:, frame] for frame in chosen]))
        return find_picture_loss(pictures, torch.cat([wanted[:, frame] for frame in chosen]))
