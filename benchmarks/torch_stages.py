"""What happens to a frame before and after the UNet, in PyTorch: autoencoder and depth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from live2diff_trt.benchmarks.torch_networks import TorchNetworks
from live2diff_trt.bundle.spec import StreamSpec

Tensors = tuple[Tensor, ...]
Module = Callable[[Tensors], Tensors]


class TorchStages:
    """Autoencoder and depth as functions of tensors; nothing is changed in place, so all of it can be captured."""

    def __init__(self, networks: TorchNetworks, spec: StreamSpec) -> None:
        self._spec = spec
        self._dtype = getattr(torch, spec.dtype)
        self._encoder: Module = networks.encoder
        self._decoder: Module = networks.decoder
        self._depth: Module = networks.depth

    def compile(self, *, backend: str = "inductor") -> None:
        """Let torch.compile compile the networks at their next use. Each is to see tensors of one shape from then on.

        The depth network, which is transformers' own code, can't be had as one graph.
        """
        self._encoder = torch.compile(self._encoder, dynamic=False, backend=backend)
        self._decoder = torch.compile(self._decoder, dynamic=False, backend=backend)
        self._depth = torch.compile(self._depth, dynamic=False, backend=backend)

    def see(self, source: Tensor) -> Tensor:
        """Scale a picture: uint8 [height, width, 3] → [1, 3, height, width] in [−1, 1], channels last."""
        return (source.permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1).to(self._dtype)

    def estimate_depth(self, picture: Tensor) -> Tensor:
        """Return the inverse depth of pictures, [frames, side, side], of no particular scale."""
        side = self._spec.depth_size
        (depth_maps,) = self._depth((interpolate(picture, (side, side), mode="bilinear", align_corners=False),))
        return depth_maps

    def show_depth(self, depth_maps: Tensor) -> Tensor:
        """Return depth maps, scaled together to [−1, 1], as grey pictures, [frames, 3, height, width]."""
        depth = depth_maps.float()
        low, high = depth.amin(), depth.amax()
        extent = torch.where(high > low, high - low, torch.ones_like(high))
        scaled = torch.where(high > low, (depth - low) / extent * 2 - 1, torch.zeros_like(depth))
        size = self._spec.height, self._spec.width
        grey = interpolate(scaled.unsqueeze(1), size, mode="bilinear", align_corners=False)
        return grey.to(self._dtype).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def encode(self, pictures: Tensor) -> Tensor:
        """Return the latents of pictures, [frames, channels, height / 8, width / 8]."""
        (latents,) = self._encoder((pictures,))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Return the pictures of latents, uint8 [frames, height, width, 3]; ties round to even."""
        (pictures,) = self._decoder((latents,))
        bytes_of = ((pictures.float().clamp(-1, 1) / 2 + 0.5) * 255).round().to(torch.uint8)
        return bytes_of.permute(0, 2, 3, 1)
