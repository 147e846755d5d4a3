"""How far pictures are from what was wanted, as one number to make smaller: values, edges and structure."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

_EDGES, _STRUCTURE = 0.5, 0.25
"""Weights beside the absolute difference of values."""
_WINDOW = 7
_LUMINANCE, _CONTRAST = 1e-4, 9e-4
"""SSIM's constants for values in [0, 1]."""


def find_picture_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Compare pictures, float32 [pictures, channels, height, width] in [−1, 1].

    Differences of values alone blur what is uncertain; those of neighbours and of local contrast (Zhao et al., "Loss
    functions for image restoration with neural networks", IEEE TCI 3/1, 2017) hold on to edges and textures.
    """
    difference = found - wanted
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return difference.abs().mean() + _EDGES * edges + _STRUCTURE * (1 - find_structure(found, wanted))


def find_structure(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean SSIM (Wang et al., IEEE TIP 13/4, 2004) over windows of 7x7 pixels, gradients included."""
    one, other = found / 2 + 0.5, wanted / 2 + 0.5
    mean_one, mean_other = _box(one), _box(other)
    variances = _box(one * one) - mean_one**2 + _box(other * other) - mean_other**2
    covariance = _box(one * other) - mean_one * mean_other
    likeness = (2 * mean_one * mean_other + _LUMINANCE) * (2 * covariance + _CONTRAST)
    return (likeness / ((mean_one**2 + mean_other**2 + _LUMINANCE) * (variances + _CONTRAST))).mean()


def _box(planes: Tensor) -> Tensor:
    across = functional.avg_pool2d(planes, (1, _WINDOW), stride=1)
    return functional.avg_pool2d(across, (_WINDOW, 1), stride=1)
