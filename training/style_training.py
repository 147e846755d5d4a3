"""How the UNet and the text encoder are trained: clips of warm-up and rolling frames, from noise to a style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import torch
from torch import Tensor

from live2diff_trt.bundle.schedule import ScheduleSpec, spread_steps
from live2diff_trt.training.clip_attention import see_clip
from live2diff_trt.training.clip_pass import denoise_clips
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.networks import SINK, WINDOW, Networks
from live2diff_trt.training.styles import STYLES, Style, draw_prompt

_USUAL_STRENGTH = 0.4
"""The preset's own step list, (30, 40), has it."""
_PICTURES = 2
"""Frames of a clip that are decoded, and compared as pictures."""


def draw_step_list(random: Random) -> tuple[int, ...]:
    """Draw a step list of 1 to 4 steps, mostly 2, from those that strengths of 0.25 to 0.7 give, mostly 0.4."""
    steps = random.choice((1, 2, 2, 2, 3, 4))
    strength = _USUAL_STRENGTH if random.random() < 0.6 else random.uniform(0.25, 0.7)
    return spread_steps(strength, steps, ScheduleSpec())


class StyleLoss:
    """Draws clips and says how far the network arrives from their style."""

    def __init__(self, networks: Networks, sampler: ClipSampler, clips: int, frames: int) -> None:
        self._networks = networks
        self._sampler = sampler
        self._size = clips, frames
        device = next(networks.unet.parameters()).device
        self._view = see_clip(frames, WINDOW, SINK).to(device)
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def __call__(self) -> Mapping[str, Tensor]:
        """Return the losses of one batch: of latents, each step's alike, and of some of the last step's pictures."""
        random = self._sampler.random
        clips = self._sampler.draw(*self._size)
        styles = [random.choice(STYLES) for _ in clips]
        wanted = _apply_styles(clips, styles) * 2 - 1
        step_list = draw_step_list(random)
        embeddings = self._networks.embed_prompts([draw_prompt(style, random) for style in styles])
        encoded = self._networks.prepare(clips * 2 - 1)
        target = self._networks.encode(wanted.flatten(0, 1))
        noise = [torch.randn_like(target) for _ in step_list]
        with self._autocast:
            found = [*denoise_clips(self._networks.unet, encoded, embeddings, self._view, step_list, noise)]
            latents = torch.stack([_find_distance(clean, target) for clean in found]).mean()
            return {"latents": latents, "pictures": self._compare_pictures(found[-1], wanted)}

    def _compare_pictures(self, clean: Tensor, wanted: Tensor) -> Tensor:
        """Decode some frames of every clip; the absolute difference of pictures and of their edges."""
        clips, frames = self._size
        chosen = torch.tensor(self._sampler.random.sample(range(frames), _PICTURES), device=clean.device)
        pictures = self._networks.decode(clean.unflatten(0, (clips, frames))[:, chosen].flatten(0, 1))
        difference = pictures - wanted[:, chosen].flatten(0, 1)
        edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        return difference.abs().mean() + 0.5 * edges


def _apply_styles(clips: Tensor, styles: Sequence[Style]) -> Tensor:
    """Return each clip in its style, [clips, frames, 3, height, width]; clips of one style go through it together."""
    wanted = torch.empty_like(clips)
    for style in dict.fromkeys(styles):
        chosen = [index for index, other in enumerate(styles) if other is style]
        wanted[chosen] = style.apply(clips[chosen].flatten(0, 1)).unflatten(0, (len(chosen), -1))
    return wanted


def _find_distance(found: Tensor, wanted: Tensor) -> Tensor:
    difference = found - wanted
    return difference.abs().mean() + 0.5 * difference.square().mean()
