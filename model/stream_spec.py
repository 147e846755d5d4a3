"""From a UNet's configuration to the parts of StreamSpec that follow from it."""

from __future__ import annotations

from typing import TypedDict

import torch

from live2diff_trt.bundle.spec import HoistedSpec, KvCacheSpec
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.unet import CausalUNet


class NetworkFields(TypedDict):
    """The fields of StreamSpec that a UNet decides."""

    heads: int
    kv_caches: tuple[KvCacheSpec, ...]
    time_projections: tuple[HoistedSpec, ...]
    prompt_kvs: tuple[HoistedSpec, ...]
    text_channels: int
    depth_channels: int
    latent_channels: int
    window: int
    sink: int


def describe_network(configuration: UNetConfiguration, latent_height: int, latent_width: int) -> NetworkFields:
    """List caches, time projections and prompt keys of a network at a latent size, without allocating it."""
    with torch.device("meta"):
        unet = CausalUNet(configuration)
    return NetworkFields(
        heads=configuration.motion_heads,
        kv_caches=tuple(
            KvCacheSpec(attention.place, attention.to_q.out_features, latent_height >> level, latent_width >> level)
            for level, attention in unet.temporal_attentions()
        ),
        time_projections=tuple(
            HoistedSpec(resnet.place, resnet.time_emb_proj.out_features) for resnet in unet.resnets()
        ),
        prompt_kvs=tuple(HoistedSpec(attention.place, attention.channels) for attention in unet.spatial_transformers()),
        text_channels=configuration.cross_attention_channels,
        depth_channels=configuration.block_channels[0],
        latent_channels=configuration.in_channels,
        window=configuration.window,
        sink=configuration.sink,
    )
