"""The light that clips are in: brightness, contrast and colours, of all frames of a clip alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from live2diff_trt.training.host_numbers import move


@dataclass(frozen=True)
class Light:
    """A change of light; by itself none.

    Attributes:
        order: where red, green and blue come from.
        saturation: 0 is grey, 1 leaves colours as they are.
        gamma: the exponent of values.
        low, high: what black and white become.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    saturation: float = 1.0
    gamma: float = 1.0
    low: float = 0.0
    high: float = 1.0

    @property
    def mixture(self) -> list[list[float]]:
        """Of which colours each new colour is made: rows of a matrix."""
        grey = (1 - self.saturation) / 3
        return [[grey + self.saturation * (source == other) for other in range(3)] for source in self.order]


def draw_light(random: Random) -> Light:
    """Draw a light; often there is no change."""
    if random.random() < 0.25:
        return Light()
    return Light(
        random.choice(((0, 1, 2), (0, 1, 2), (2, 1, 0), (1, 0, 2))),
        random.uniform(0.3, 1.4),
        random.uniform(0.6, 1.7),
        random.uniform(0, 0.15),
        random.uniform(0.8, 1),
    )


def change_light(clips: Tensor, lights: Sequence[Light]) -> Tensor:
    """Put each clip, [clips, frames, 3, height, width] in [0, 1], into its light."""
    mixtures = move([light.mixture for light in lights], clips.device)
    curves = move([(light.gamma, light.low, light.high) for light in lights], clips.device)
    gamma, low, high = curves[:, :, None, None, None, None].unbind(1)
    coloured = torch.einsum("nij,nfjhw->nfihw", mixtures, clips).clamp(0, 1)
    return low + (high - low) * coloured**gamma
