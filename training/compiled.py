"""The UNet compiled: it is small, so that most of its time on a GPU is launching kernels and moving what they leave."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from live2diff_trt.model.unet import Conditions


class RunUNet(Protocol):
    """A UNet's forward pass: ``CausalUNet.forward``."""

    def __call__(self, sample: Tensor, depth_features: Tensor, conditions: Conditions) -> Tensor:
        """Predict the noise in ``sample``."""


def compile_unet(unet: nn.Module) -> RunUNet:
    """Return the UNet's forward pass, compiled whole when it is first called, for the shapes that it is called with.

    It raises what torch.compile raises, if it can't be compiled: nothing falls back to the network as it is.
    """
    return cast(RunUNet, torch.compile(unet, fullgraph=True, dynamic=False))
