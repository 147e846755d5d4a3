"""The networks of a point in PyTorch, with the weights that an export of it puts into its bundle."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from live2diff_trt.benchmarks.point import Point
from live2diff_trt.export.autoencoder import VaeDecoderGraph, VaeEncoderGraph
from live2diff_trt.export.depth import DepthGraph
from live2diff_trt.export.text import TextEncoderGraph
from live2diff_trt.export.weights_source import RandomWeights
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import load_unet


@dataclass(frozen=True, eq=False)
class TorchNetworks:
    """Modules on one device, in evaluation mode, their convolutions channels last.

    All but the UNet map a tuple of tensors to one, as their graphs' signatures say. Rows share them: nobody changes
    them.
    """

    unet: CausalUNet
    encoder: nn.Module
    decoder: nn.Module
    depth: nn.Module
    text_encoder: nn.Module

    @classmethod
    def build(cls, point: Point, device: torch.device, kept: Path | None = None) -> TorchNetworks:
        """Make the networks, channels last.

        Args:
            point: whose networks.
            device: where they go.
            kept: folder in which the UNet's weights are kept, because making them takes a while; None: they are made.
        """
        preset, source, dtype = point.as_preset(), RandomWeights(point.seed), getattr(torch, point.dtype)
        autoencoder = source.autoencoder(preset, dtype)
        networks = cls(
            _make_unet(point, dtype) if kept is None else _load_or_make_unet(point, dtype, kept),
            VaeEncoderGraph(autoencoder),
            VaeDecoderGraph(autoencoder),
            DepthGraph(source.depth(preset, dtype)),
            TextEncoderGraph(source.text_encoder(preset, dtype), clip_skip=0),
        )
        return cls(*(_place(network, device) for network in networks.all()))

    def in_float32(self) -> TorchNetworks:
        """Return copies that compute in float32, from the same rounded weights."""
        return TorchNetworks(*(deepcopy(network).float() for network in self.all()))

    def all(self) -> tuple[Any, ...]:
        """Return them in the order of the fields."""
        return self.unet, self.encoder, self.decoder, self.depth, self.text_encoder


def _place(network: Any, device: torch.device) -> Any:
    return network.to(device).to(memory_format=torch.channels_last)


def _make_unet(point: Point, dtype: torch.dtype) -> CausalUNet:
    return RandomWeights(point.seed).unet(point.as_preset(), dtype)


def _load_or_make_unet(point: Point, dtype: torch.dtype, kept: Path) -> CausalUNet:
    path = kept / f"unet-{point.preset}-{point.dtype}-seed{point.seed}.pt"
    if path.is_file():
        weights = torch.load(path, mmap=True, weights_only=True)
        return load_unet(point.as_preset().unet, weights, dtype)
    unet = _make_unet(point, dtype)
    kept.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    torch.save(unet.state_dict(), partial)
    partial.replace(path)
    return unet
