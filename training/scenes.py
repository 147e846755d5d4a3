"""Generated moving scenes: things that glide, turn and hide each other before a background that moves by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from random import Random
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from live2diff_trt.training.host_numbers import move

Value = TypeVar("Value", float, Tensor)
Colour: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Thing(Generic[Value]):
    """Between a disc and a box, of one colour with stripes that move with it: numbers, or a tensor for each of them.

    Attributes:
        shown: 1, or 0 for no thing at all.
        x, y: its place in the middle of the clip, in units of half the picture's height.
        across, down: how far it glides during the clip.
        turn, spin: at the middle of the clip, and how far it turns during it, in radians.
        reach, flatness: half its length, and its width as a share of that.
        power: 2 is a disc, more is nearer to a box.
        stripes, contrast: how close stripes are, and how far they differ.
        red, green, blue, other_red, other_green, other_blue: of the surface and of its stripes.
    """

    shown: Value
    x: Value
    y: Value
    across: Value
    down: Value
    turn: Value
    spin: Value
    reach: Value
    flatness: Value
    power: Value
    stripes: Value
    contrast: Value
    red: Value
    green: Value
    blue: Value
    other_red: Value
    other_green: Value
    other_blue: Value


_NO_THING = Thing(*[0.0] * 7, *[1.0] * 3, *[0.0] * 8)


def draw_thing(random: Random, frames: int, smallest: float = 0.1, largest: float = 0.5) -> Thing[float]:
    """Draw a thing for a clip of so many frames; of all sizes, small ones are the most usual."""
    distance, heading = 0.05 * frames * random.uniform(0, 1), random.uniform(0, 2 * math.pi)
    return Thing(
        1.0,
        random.uniform(-1.6, 1.6),
        random.uniform(-1, 1),
        distance * math.cos(heading),
        distance * math.sin(heading),
        random.uniform(0, math.pi),
        random.uniform(-1.5, 1.5),
        smallest * (largest / smallest) ** random.random(),
        random.uniform(0.3, 1.0),
        random.choice((2.0, 2.0, 4.0, 8.0)),
        random.uniform(5, 40),
        random.choice((0.0, 0.0, 0.5, 1.0)),
        *draw_colour(random),
        *draw_colour(random),
    )


def add_things(scene: Tensor, things: Sequence[Sequence[Thing[float]]]) -> Tensor:
    """Put each clip's things before it, the first farthest away; return clips of the same shape.

    Args:
        scene: [clips, frames, 3, height, width] in [0, 1]; it stays as it is.
        things: of each clip, any number.
    """
    most = max(map(len, things))
    rows = [[astuple(thing) for thing in (*some, *[_NO_THING] * (most - len(some)))] for some in things]
    table = move(rows, scene.device) if most else scene.new_empty(len(rows), 0, len(fields(Thing)))
    for index in range(most):
        scene = _add_thing(scene, Thing(*table[:, index, :, None, None, None].unbind(1)))
    return scene


def make_gradients(
    directions: Sequence[float], colours: Sequence[tuple[Colour, Colour]], width: int, height: int, device: torch.device
) -> Tensor:
    """Return a background for each direction, in radians: two colours that run into each other.

    Returns:
        [clips, 1, 3, height, width].
    """
    y, x = _grid(width, height, device)
    direction = move(directions, device)[:, None, None]
    share = (0.5 + 0.5 * (x * direction.cos() + y * direction.sin())).clamp(0, 1)[:, None, None]
    first, second = move(colours, device)[:, :, None, :, None, None].unbind(1)
    return first + (second - first) * share


def make_piles(random: Random, piles: int, things: int, width: int, height: int, device: torch.device) -> Tensor:
    """Return stills of things that hide each other, [piles, 3, height, width]: edges of all sizes, as photographs have.

    This is the dead leaves model (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 41, 2001).
    """
    directions = [random.uniform(0, 2 * math.pi) for _ in range(piles)]
    colours = [(draw_colour(random), draw_colour(random)) for _ in range(piles)]
    background = make_gradients(directions, colours, width, height, device)
    return add_things(background, [[draw_thing(random, 1, 0.03, 0.6) for _ in range(things)] for _ in range(piles)])[
        :, 0
    ]


def draw_colour(random: Random) -> Colour:
    """Draw a colour."""
    return random.random(), random.random(), random.random()


def _add_thing(scene: Tensor, thing: Thing[Tensor]) -> Tensor:
    """Put one thing before every clip; its numbers are [clips, 1, 1, 1]."""
    frames, _, height, width = scene.shape[1:]
    y, x = _grid(width, height, scene.device)
    time = torch.linspace(-0.5, 0.5, frames, device=scene.device)[:, None, None]
    x = x - thing.x - thing.across * time  # [clips, frames, height, width], y alike
    y = y - thing.y - thing.down * time
    turn = thing.turn + thing.spin * time
    across, along = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    part_across, part_along = across / thing.reach, along / (thing.reach * thing.flatness)
    distance = (part_across.abs() ** thing.power + part_along.abs() ** thing.power) ** (1 / thing.power)
    shown = thing.shown * torch.sigmoid((1 - distance) * thing.reach * 0.6 * height)
    striped = thing.contrast * (0.5 + 0.5 * torch.sin(across * thing.stripes))
    light = 1.1 - 0.5 * distance.clamp(max=1)
    first = torch.stack([thing.red, thing.green, thing.blue], dim=2)
    second = torch.stack([thing.other_red, thing.other_green, thing.other_blue], dim=2)
    surface = (first + striped[:, :, None] * (second - first)) * light[:, :, None]
    return (scene + shown[:, :, None] * (surface - scene)).clamp(0, 1)


def _grid(width: int, height: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each pixel's place, y [height, 1] and x [1, width], in units of half the picture's height."""
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None] * (width / height)
    return y, x
