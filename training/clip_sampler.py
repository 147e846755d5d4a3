"""Clips to train from, made as they are needed: under a moving camera, in other light, with things before them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import torch
from torch import Tensor

from live2diff_trt.training.camera import draw_path, film
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.scenes import add_things, make_gradient


class ClipSampler:
    """Draws clips from footage that lies on the device as uint8. The same seed draws the same clips.

    Raises:
        TrainingError: if there is no footage.
    """

    def __init__(self, shots: Mapping[str, Frames], width: int, height: int, seed: int, device: torch.device) -> None:
        if not shots:
            raise TrainingError("there is no footage", "Pack some with `python -m live2diff_trt.training pack`")
        self._shots = [torch.from_numpy(shot).permute(0, 3, 1, 2).to(device) for shot in shots.values()]
        self._size = width, height
        self._device = device
        self.random = Random(seed)

    def draw(self, clips: int, frames: int) -> Tensor:
        """Return clips, float32 [clips, frames, 3, height, width] in [0, 1]."""
        return torch.stack([self._draw_clip(frames) for _ in range(clips)])

    def _draw_clip(self, frames: int) -> Tensor:
        moving = [shot for shot in self._shots if len(shot) > 1]
        kind = self.random.random()
        if moving and kind < 0.5:
            clip = self._film_shot(self.random.choice(moving), frames)
        elif kind < 0.92:
            clip = self._film_still(frames)
        else:
            clip = make_gradient(frames, *self._size, self.random, self._device)
        if kind > 0.75:
            clip = add_things(clip, self.random, most=4)
        return self._change_light(clip)

    def _film_shot(self, shot: Tensor, frames: int) -> Tensor:
        """Follow a shot, forwards or backwards, at its pace or twice as fast, to its end and back again."""
        pace, first = self.random.choice((1, 1, 2)), self.random.randrange(len(shot))
        places = (first + pace * torch.arange(frames)) % (2 * len(shot) - 2)
        there_and_back = torch.where(places < len(shot), places, 2 * len(shot) - 2 - places)
        path = draw_path(self.random, nearest=0.6, motion=0.25)
        return film(_to_float(shot[there_and_back.to(shot.device)]), path, *self._size)

    def _film_still(self, frames: int) -> Tensor:
        """Move a camera over one frame."""
        shot = self.random.choice(self._shots)
        still = shot[self.random.randrange(len(shot))]
        path = draw_path(self.random, nearest=0.35, motion=0.025 * frames)
        return film(_to_float(still[None].expand(frames, -1, -1, -1)), path, *self._size)

    def _change_light(self, clip: Tensor) -> Tensor:
        """Change brightness, contrast and colours, all frames alike."""
        if self.random.random() < 0.25:
            return clip
        order = torch.tensor(self.random.choice(((0, 1, 2), (0, 1, 2), (2, 1, 0), (1, 0, 2))), device=clip.device)
        grey = clip.mean(dim=1, keepdim=True)
        coloured = grey + self.random.uniform(0.3, 1.4) * (clip[:, order] - grey)
        curved = coloured.clamp(0, 1) ** self.random.uniform(0.6, 1.7)
        low, high = self.random.uniform(0, 0.15), self.random.uniform(0.8, 1)
        return low + (high - low) * curved


def _to_float(frames: Tensor) -> Tensor:
    return frames.float() / 255
