"""Camera moves over footage: pans, zooms and turns, as affine maps from a picture's grid to its source's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from torch import Tensor
from torch.nn import functional

from live2diff_trt.training.host_numbers import move


@dataclass(frozen=True)
class View:
    """What a camera sees of its source.

    Attributes:
        zoom: the share of the source's side that it sees, 0 to 1.
        x, y: its place, −1 to 1: where it can move no further.
        turn: in radians.
    """

    zoom: float
    x: float
    y: float
    turn: float


@dataclass(frozen=True)
class CameraPath:
    """A smooth move from one view to another; ``mirrored`` swaps left and right."""

    start: View
    end: View
    mirrored: bool

    def view_at(self, share: float) -> View:
        """Return the view after that share of the path."""
        eased = share * share * (3 - 2 * share)
        pairs = zip(_values(self.start), _values(self.end), strict=True)
        return View(*(before + eased * (after - before) for before, after in pairs))


def draw_path(random: Random, nearest: float, motion: float) -> CameraPath:
    """Draw a path: zooms from ``nearest`` to 1; ``motion`` from 0, a still camera, to 1, one across the source."""
    start = View(random.uniform(nearest, 1), random.uniform(-1, 1), random.uniform(-1, 1), random.gauss(0, 0.05))
    target = View(random.uniform(nearest, 1), random.uniform(-1, 1), random.uniform(-1, 1), random.gauss(0, 0.15))
    whole = CameraPath(start, target, mirrored=False)
    return CameraPath(start, whole.view_at(random.uniform(0, motion)), mirrored=random.random() < 0.5)


def film(sources: Tensor, paths: Sequence[CameraPath], width: int, height: int) -> Tensor:
    """Move a camera over each source.

    Args:
        sources: float [clips, frames, channels, any height, any width].
        paths: of each clip. Its frame i is seen in frame i of its source, by a view that walks along the path.
        width, height: of the result, [clips, frames, channels, height, width].
    """
    clips, frames, channels = sources.shape[:3]
    shares = [index / max(frames - 1, 1) for index in range(frames)]
    aspect = (width / height) / (sources.shape[4] / sources.shape[3])
    maps = [_affine(path.view_at(share), aspect, path.mirrored) for path in paths for share in shares]
    grid = functional.affine_grid(
        move(maps, sources.device), [clips * frames, channels, height, width], align_corners=False
    )
    seen = functional.grid_sample(sources.flatten(0, 1), grid, padding_mode="reflection", align_corners=False)
    return seen.unflatten(0, (clips, frames))


def _affine(view: View, aspect: float, mirrored: bool) -> list[list[float]]:
    """Return the map from the picture's [−1, 1] to the source's, where both are seen without distortion."""
    across, down = view.zoom * min(1.0, aspect), view.zoom * min(1.0, 1 / aspect)
    cosine, sine = math.cos(view.turn), math.sin(view.turn)
    flip = -1 if mirrored else 1
    return [
        [flip * across * cosine, -across * sine, view.x * (1 - across)],
        [flip * down * sine, down * cosine, view.y * (1 - down)],
    ]


def _values(view: View) -> tuple[float, ...]:
    return view.zoom, view.x, view.y, view.turn
