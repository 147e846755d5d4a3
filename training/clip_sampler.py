"""Clips to train from, made as they are needed: under a moving camera, in other light, with things before them.

What a batch shows is drawn on the host, as numbers; all of its clips are then made together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from live2diff_trt.training.camera import CameraPath, draw_path, film
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.host_numbers import move
from live2diff_trt.training.light import Light, change_light, draw_light
from live2diff_trt.training.scenes import Colour, Thing, add_things, draw_colour, draw_thing, make_gradients, make_piles

_PILES, _THINGS_OF_A_PILE = 12, 200
_MOST_THINGS = 4


@dataclass(frozen=True)
class ClipPlan:
    """What a clip will show.

    Attributes:
        places: of each of its frames in all footage.
        path: the camera's.
        direction, colours: of the gradient that takes the footage's place; None for footage.
        things: before it.
        light: that it is in.
    """

    places: tuple[int, ...]
    path: CameraPath
    direction: float | None
    colours: tuple[Colour, Colour]
    things: tuple[Thing[float], ...]
    light: Light


class ClipSampler:
    """Draws clips from footage that lies on the device as uint8, some of it generated.

    Raises:
        TrainingError: if there is no footage.
    """

    def __init__(self, shots: Mapping[str, Frames], width: int, height: int, seed: int, device: torch.device) -> None:
        if not shots:
            raise TrainingError("there is no footage", "Pack some with `python -m live2diff_trt.training pack`")
        self._size = width, height
        self._device = device
        self._footage, self._shots = _lay_out(shots, device)
        self._piles = range(len(self._footage), len(self._footage) + _PILES)
        height, width = self._footage.shape[2:]
        piles = make_piles(Random(f"{seed} piles"), _PILES, _THINGS_OF_A_PILE, width, height, device)
        self._footage = torch.cat([self._footage, _to_bytes(piles)])

    def draw(self, random: Random, clips: int, frames: int) -> Tensor:
        """Return clips, float32 [clips, frames, 3, height, width] in [0, 1]. Equal randoms draw equal clips."""
        return self._make([self._plan(random, frames) for _ in range(clips)])

    def _plan(self, random: Random, frames: int) -> ClipPlan:
        kind = random.random()
        moving = [shot for shot in self._shots if len(shot) > 1]
        if moving and kind < 0.3:
            places = _follow(random.choice(moving), frames, random)
            path = draw_path(random, nearest=0.6, motion=0.25)
        else:
            still = random.choice(self._piles if kind > 0.75 else random.choice(self._shots))
            places = (still,) * frames
            path = draw_path(random, nearest=0.35, motion=0.025 * frames)
        things = random.randint(1, _MOST_THINGS) if random.random() < 0.4 else 0
        return ClipPlan(
            places,
            path,
            random.uniform(0, 2 * math.pi) if kind > 0.95 else None,
            (draw_colour(random), draw_colour(random)),
            tuple(draw_thing(random, frames) for _ in range(things)),
            draw_light(random),
        )

    def _make(self, plans: Sequence[ClipPlan]) -> Tensor:
        places = move([plan.places for plan in plans], self._device, torch.int64)
        filmed = film(self._footage[places].float() / 255, [plan.path for plan in plans], *self._size)
        scene = self._put_gradients(filmed, plans)
        scene = add_things(scene, [plan.things for plan in plans])
        return change_light(scene, [plan.light for plan in plans])

    def _put_gradients(self, filmed: Tensor, plans: Sequence[ClipPlan]) -> Tensor:
        """Return the clips with gradients in place of those that are to have one."""
        chosen = move([plan.direction is not None for plan in plans], self._device, torch.bool)
        directions = [plan.direction or 0.0 for plan in plans]
        gradients = make_gradients(directions, [plan.colours for plan in plans], *self._size, self._device)
        return torch.where(chosen[:, None, None, None, None], gradients, filmed)


def _lay_out(shots: Mapping[str, Frames], device: torch.device) -> tuple[Tensor, list[range]]:
    """Lay all frames behind each other, all as large as the largest; return them and each shot's places.

    Returns:
        uint8 [frames, 3, height, width].
    """
    height, width = max(shot.shape[1:3] for shot in shots.values())
    frames = [_resize(torch.from_numpy(shot).permute(0, 3, 1, 2).to(device), height, width) for shot in shots.values()]
    ends = [*accumulate(map(len, frames))]
    return torch.cat(frames), [range(end - len(shot), end) for end, shot in zip(ends, frames, strict=True)]


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    if frames.shape[2:] == (height, width):
        return frames
    return _to_bytes(functional.interpolate(frames.float() / 255, (height, width), mode="bilinear"))


def _to_bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().byte()


def _follow(shot: range, frames: int, random: Random) -> tuple[int, ...]:
    """Follow a shot, forwards or backwards, at its pace or twice as fast, to its end and back again."""
    pace, first, lap = random.choice((1, 1, 2)), random.randrange(len(shot)), 2 * len(shot) - 2
    steps = [(first + pace * index) % lap for index in range(frames)]
    return tuple(shot[min(step, lap - step)] for step in steps)
