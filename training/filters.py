"""Classical filters that show the network what a style is.

A target is a smooth function of its own frame's neighbourhoods and has no random part, so targets are as steady as
their input. Pictures are float [frames, 3, height, width] in [0, 1], on any device; so are the results.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_SCHARR = (
    ((-3 / 32, 0.0, 3 / 32), (-10 / 32, 0.0, 10 / 32), (-3 / 32, 0.0, 3 / 32)),
    ((-3 / 32, -10 / 32, -3 / 32), (0.0, 0.0, 0.0), (3 / 32, 10 / 32, 3 / 32)),
)
"""Its slopes rightwards and down."""


def draw_sketch(picture: Tensor) -> Tensor:
    """Draw with a pencil: dark where a pixel is darker than around it (a colour dodge), tones as light hatching."""
    luma = find_luma(smooth_edges(smooth_edges(picture, 2, 0.004), 2, 0.004))
    lines = (luma / blur(luma, 3.5).clamp(min=0.05)).clamp(max=1.0)
    fine_lines = (luma / blur(luma, 1.4).clamp(min=0.05)).clamp(max=1.0)
    tone = 0.62 + 0.38 * torch.sigmoid(8 * (blur(luma, 1.5) - 0.3))
    drawing = (lines**2.5 * fine_lines**1.4 * tone).clamp(0, 1)
    graphite, paper = _colour(picture, (0.13, 0.13, 0.16)), _colour(picture, (0.97, 0.96, 0.92))
    return graphite + (paper - graphite) * drawing


def paint_watercolour(picture: Tensor) -> Tensor:
    """Paint in washes: colours run together inside edges, are light and full, and settle darkly along the edges."""
    wash = smooth_edges(smooth_edges(picture, 3, 0.004), 3, 0.004)
    luma = find_luma(wash)
    vivid = (luma + 2.1 * (wash - luma)).clamp(0, 1)
    light = 1 - (1 - vivid**0.7) * 0.72
    pigment = (4.5 * find_edges(blur(wash, 0.6))).clamp(max=0.5)
    paper = _colour(picture, (1.0, 0.98, 0.94))
    return (light * (1 - pigment * (1 - 0.5 * vivid)) * paper).clamp(0, 1)


def light_neon(picture: Tensor) -> Tensor:
    """Light a city at night: edges are tubes whose colour follows the surface, with a glow, over a dark violet."""
    calm = smooth_edges(smooth_edges(picture, 3, 0.005), 3, 0.005)
    edges = (9 * find_edges(blur(calm, 0.7))).clamp(max=1.6)
    luma = find_luma(blur(calm, 2.0))
    warmth = blur(calm[:, :1] - calm[:, 2:], 3.0)
    place = torch.sigmoid(6 * (luma - 0.45) + 8 * warmth)
    cyan, magenta = _colour(picture, (0.05, 0.85, 1.0)), _colour(picture, (1.0, 0.15, 0.75))
    tube_colour = cyan + (magenta - cyan) * place
    tubes = edges * tube_colour
    glow = blur(tubes, 2.5)
    night = find_luma(calm) * _colour(picture, (0.30, 0.16, 0.48)) + _colour(picture, (0.02, 0.01, 0.06))
    core = (edges - 1).clamp(min=0)
    return (night + 0.75 * tubes + 0.7 * glow + core).clamp(0, 1)


def draw_cartoon(picture: Tensor) -> Tensor:
    """Draw a cartoon: few flat, full tones with soft steps between them, and bold outlines.

    Outlines are those of an extended difference of Gaussians (Winnemöller et al., Computers & Graphics 36/6, 2012).
    """
    calm = smooth_edges(smooth_edges(picture, 3, 0.004), 3, 0.004)
    luma = find_luma(calm)
    vivid = (_step_softly(luma, 5) ** 0.85 + 2.1 * (calm - luma)).clamp(0, 1)
    drawn = find_luma(smooth_edges(picture, 3, 0.003))
    inside = blur(drawn, 1.2) - 0.99 * blur(drawn, 2.6)
    outline = 0.5 + 0.5 * torch.tanh(40 * (inside + 0.015))
    return (vivid * (0.06 + 0.94 * outline)).clamp(0, 1)


def keep_photo(picture: Tensor) -> Tensor:
    """Change nothing."""
    return picture


def find_luma(picture: Tensor) -> Tensor:
    """[frames, 3, height, width] → [frames, 1, height, width]."""
    return (picture * _colour(picture, _LUMA)).sum(dim=1, keepdim=True)


def blur(planes: Tensor, deviation: float) -> Tensor:
    """Blur by a Gaussian of that deviation, in pixels; at the border the picture is repeated."""
    bell = _make_bell(deviation, planes.device, planes.dtype)
    padded = functional.pad(planes.flatten(0, 1)[:, None], (len(bell) // 2,) * 4, mode="replicate")
    across = functional.conv2d(padded, bell.view(1, 1, 1, -1))
    return functional.conv2d(across, bell.view(1, 1, -1, 1))[:, 0].unflatten(0, planes.shape[:2])


def smooth_edges(picture: Tensor, reach: int, contrast: float) -> Tensor:
    """Smooth what is not an edge: the guided filter, guided by luma (He et al., TPAMI 35/6, 2013, eq. 5, 6 and 8).

    Args:
        picture: [frames, channels, height, width].
        reach: half the side of a window, in pixels.
        contrast: variance of the luma below which a window counts as flat.
    """
    guide = find_luma(picture)
    mean_guide, mean = _box(guide, reach), _box(picture, reach)
    variance = _box(guide * guide, reach) - mean_guide**2
    slope = (_box(guide * picture, reach) - mean_guide * mean) / (variance + contrast)
    offset = mean - slope * mean_guide
    return (_box(slope, reach) * guide + _box(offset, reach)).clamp(0, 1)


def find_edges(picture: Tensor) -> Tensor:
    """Return the length of the strongest channel's gradient, [frames, 1, height, width], by Scharr's filter."""
    slopes = _constant(_SCHARR, picture.device, picture.dtype)[:, None]
    planes = functional.pad(picture.flatten(0, 1)[:, None], (1,) * 4, mode="replicate")
    gradient = functional.conv2d(planes, slopes)
    length = (gradient.square().sum(dim=1) + 1e-6).sqrt()
    return length.unflatten(0, picture.shape[:2]).amax(dim=1, keepdim=True)


def _step_softly(luma: Tensor, steps: int) -> Tensor:
    """Quantise to tones, with a slope between two of them, so that a small change of light stays a small change."""
    scaled = luma * steps
    low = scaled.floor()
    return (low + torch.sigmoid(10 * (scaled - low - 0.5))) / steps


def _box(planes: Tensor, reach: int) -> Tensor:
    """Mean over windows of 2 · reach + 1 pixels, over the part of them that lies in the picture."""
    for window, padding in (((1, 2 * reach + 1), (0, reach)), ((2 * reach + 1, 1), (reach, 0))):
        planes = functional.avg_pool2d(planes, window, stride=1, padding=padding, count_include_pad=False)
    return planes


def _colour(like: Tensor, colour: tuple[float, float, float]) -> Tensor:
    return _constant(colour, like.device, like.dtype).view(1, 3, 1, 1)


# What follows is made once for each device: to bring it there would make the host wait for the device.


@cache
def _constant(numbers: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(numbers, device=device, dtype=dtype)


@cache
def _make_bell(deviation: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a Gaussian's values, of sum 1, as far as three deviations."""
    reach = max(1, round(3 * deviation))
    values = [math.exp(-(offset**2) / (2 * deviation**2)) for offset in range(-reach, reach + 1)]
    return _constant(tuple(value / sum(values) for value in values), device, dtype)
