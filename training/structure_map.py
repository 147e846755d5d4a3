"""An honest stand-in for depth: not depth, but a smoothed map of the picture's structure, by fixed filters."""

from __future__ import annotations

import torch
from torch import Tensor

from live2diff_trt.export.depth import TinyDepth, build_depth

_EDGE_WEIGHT = 6.0


def make_structure_map() -> TinyDepth:
    """Return the tiny depth network with weights set by hand: smoothed brightness, lowered along edges.

    Its first layer finds brightness' slopes (Sobel), rightwards, leftwards, down and up; its second lets them pass; its
    last adds them up.
    """
    network = build_depth("tiny")
    assert isinstance(network, TinyDepth)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.conv_in.weight[:4] = _find_slopes()[:, None].expand(-1, 3, -1, -1) / 3
        smoothing = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16
        for channel in range(4):
            network.conv_middle.weight[channel, channel] = smoothing
        network.conv_out.weight[0, :4, 1, 1] = -_EDGE_WEIGHT
    return network.eval().requires_grad_(False)


def _find_slopes() -> Tensor:
    """Return Sobel's filter in four directions, [4, 3, 3]."""
    rightwards = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    return torch.stack([rightwards, -rightwards, rightwards.T, -rightwards.T])
