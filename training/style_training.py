"""How the UNet and the text encoder are trained: clips of warm-up and rolling frames, from noise to a style."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from live2diff_trt.bundle.schedule import ScheduleSpec, spread_steps
from live2diff_trt.training.clip_attention import see_clip
from live2diff_trt.training.clip_pass import StepTensors, denoise_clips, place_steps
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.compiled import RunUNet
from live2diff_trt.training.host_numbers import move
from live2diff_trt.training.networks import SINK, WINDOW, Networks, tokenize
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


class StyleBatch(NamedTuple):
    """Clips, and what is wanted of them.

    Attributes:
        clips: [clips, frames, 3, height, width] in [−1, 1].
        wanted: the same in their styles.
        token_ids: of their prompts, [clips, tokens] int64.
        steps: of the step list that they take.
        noise: for every step, [steps, clips · frames, channels, height, width of a latent].
        compared: which frames of every clip are compared as pictures, int64.
    """

    clips: Tensor
    wanted: Tensor
    token_ids: Tensor
    steps: StepTensors
    noise: Tensor
    compared: Tensor


class StyleTask:
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
        self._device = next(networks.unet.parameters()).device
        self._view = see_clip(frames, WINDOW, SINK).to(self._device)
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda")

    def draw(self, random: Random, clock: StageClock) -> StyleBatch:
        """Draw clips, their styles and prompts, and a step list."""
        with clock.stage("sampling"):
            clips = self._sampler.draw(random, *self._size)
        with clock.stage("filters"):
            styles = choose_for_batch(random, STYLES, [1.0] * len(STYLES), len(clips))
            wanted = apply_styles(clips, styles) * 2 - 1
        with clock.stage("text"):
            token_ids = tokenize([draw_prompt(style, random) for style in styles]).to(self._device, non_blocking=True)
        step_list = draw_step_list(random)
        noise = torch.randn(len(step_list), *self._networks.latent_shape(clips), device=self._device)
        compared = move(random.sample(range(self._size[1]), _PICTURES), self._device, torch.int64)
        return StyleBatch(clips * 2 - 1, wanted, token_ids, place_steps(step_list, self._device), noise, compared)

    def find_losses(self, batch: StyleBatch, clock: StageClock) -> Mapping[str, Tensor]:
        """Return the losses of one batch: of latents and their steadiness in all steps, of pictures in the last."""
        with clock.stage("text"):
            embeddings = self._networks.embed_tokens(batch.token_ids)
        with self._autocast, clock.stage("encode"):
            encoded = self._networks.prepare(batch.clips)
            target = self._networks.encode(batch.wanted.flatten(0, 1))
        with self._autocast, clock.stage("unet"):
            found = [
                *denoise_clips(
                    self._networks.unet, encoded, embeddings, self._view, batch.steps, batch.noise, self._run_unet
                )
            ]
        errors = (torch.stack(found) - target) / self._networks.latent_deviation
        steadiness = errors.unflatten(1, self._size).diff(dim=2).abs().mean()
        latents = errors.abs().mean() + 0.5 * errors.square().mean()
        with clock.stage("pictures"):
            pictures = self._compare_pictures(found[-1], batch)
        return {
            "latents": latents,
            "steadiness": _STEADINESS_WEIGHT * steadiness,
            "pictures": _PICTURE_WEIGHT * pictures,
        }

    def _compare_pictures(self, clean: Tensor, batch: StyleBatch) -> Tensor:
        """Decode the same few frames of every clip, and compare them."""
        latents = clean.unflatten(0, self._size).index_select(1, batch.compared)
        with self._autocast:
            pictures = self._networks.decode(latents.flatten(0, 1))
        return find_picture_loss(pictures, batch.wanted.index_select(1, batch.compared).flatten(0, 1))
