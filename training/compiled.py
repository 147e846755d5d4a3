"""The UNet compiled: it is small, so that most of its time on a GPU is launching kernels and moving what they leave."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from live2diff_trt.model.unet import Conditions
from live2diff_trt.training.errors import TrainingError


class RunUNet(Protocol):
    """A UNet's forward pass: ``CausalUNet.forward``."""

    def __call__(self, sample: Tensor, depth_features: Tensor, conditions: Conditions) -> Tensor:
        """Predict the noise in ``sample``."""


def compile_unet(unet: nn.Module) -> RunUNet:
    """Return the UNet's forward pass, compiled whole when it is first called, for the shapes that it is called with.

    The call raises TrainingError if it can't be compiled: nothing falls back to the network as it is.
    """
    compiled = torch.compile(unet, fullgraph=True, dynamic=False)

    def run(sample: Tensor, depth_features: Tensor, conditions: Conditions) -> Tensor:
        try:
            return compiled(sample, depth_features, conditions)
        except TorchDynamoException as error:
            raise TrainingError(
                f"the UNet can't be compiled ({error})", "Train with --no-compiled, which takes longer"
            ) from error

    return run
