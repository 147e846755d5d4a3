"""Generated moving scenes: things that glide, turn and hide each other before a background that moves by itself."""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor


def add_things(background: Tensor, random: Random, most: int) -> Tensor:
    """Put up to ``most`` moving things before a background, [frames, 3, height, width] in [0, 1]; it stays as it is."""
    scene = background
    for _ in range(random.randint(1, most)):
        scene = _add_thing(scene, random)
    return scene


def make_gradient(frames: int, width: int, height: int, random: Random, device: torch.device) -> Tensor:
    """Return a background of two colours that run into each other, [frames, 3, height, width]."""
    direction = random.uniform(0, 2 * math.pi)
    y, x = _grid(width, height, device)
    share = (0.5 + 0.5 * (x * math.cos(direction) + y * math.sin(direction))).clamp(0, 1)
    first, second = _draw_colour(random, device), _draw_colour(random, device)
    return (first + (second - first) * share).expand(frames, -1, -1, -1)


def _add_thing(scene: Tensor, random: Random) -> Tensor:
    """Put one thing before a scene: between a disc and a box, of one colour with stripes that move with it."""
    frames, _, height, width = scene.shape
    y, x = _grid(width, height, scene.device)
    time = torch.linspace(-0.5, 0.5, frames, device=scene.device)[:, None, None]
    speed, spin = 0.05 * frames * random.uniform(0, 1), random.uniform(-1.5, 1.5)
    heading = random.uniform(0, 2 * math.pi)
    x = x - random.uniform(-0.9, 0.9) - speed * math.cos(heading) * time
    y = y - random.uniform(-0.6, 0.6) - speed * math.sin(heading) * time
    turn = random.uniform(0, math.pi) + spin * time
    across, along = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    reach, flatness, power = random.uniform(0.1, 0.5), random.uniform(0.4, 1.0), random.choice((2.0, 2.0, 4.0, 8.0))
    distance = ((across / reach).abs() ** power + (along / (reach * flatness)).abs() ** power) ** (1 / power)
    shown = torch.sigmoid((1 - distance) * reach * 0.6 * height)[:, None]
    stripes = 0.5 + 0.5 * torch.sin(across * random.uniform(5, 40))[:, None]
    light = (1.1 - 0.5 * distance.clamp(max=1))[:, None]
    first, second = _draw_colour(random, scene.device), _draw_colour(random, scene.device)
    contrast = random.choice((0.0, 0.0, 0.5, 1.0))
    surface = (first + contrast * (second - first) * stripes) * light
    return (scene + shown * (surface - scene)).clamp(0, 1)


def _grid(width: int, height: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pixel's place, y [height, 1] and x [1, width], in units of half the picture's height."""
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None] * (width / height)
    return y, x


def _draw_colour(random: Random, device: torch.device) -> Tensor:
    return torch.tensor([random.random() for _ in range(3)], device=device).view(1, 3, 1, 1)
