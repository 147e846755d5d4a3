"""The causal UNet. There is one: warm-up and streaming differ only in the temporal attention they pass in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn.functional import silu

from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.motion_module import MotionModule
from live2diff_trt.model.spatial import DepthEmbedding, Resnet, SpatialTransformer
from live2diff_trt.model.temporal_attention import KeyValue, TemporalAttend, TemporalAttention


@dataclass(frozen=True)
class Conditions:
    """What a pass through the network is given beside its sample.

    Attributes:
        time: resnet's place → its time projection, [rows, channels].
        prompt: spatial transformer's place → (keys, values), each [rows, tokens, channels].
        attend: temporal attention, for the stream or for warm-up.
    """

    time: Mapping[str, Tensor]
    prompt: Mapping[str, KeyValue]
    attend: TemporalAttend


class Block(nn.Module):
    """One level of the UNet, down or up: layers of [resnet, spatial transformer, motion module], then a resampler.

    A layer lacks what its level's configuration leaves out.
    """

    def __init__(
        self, place: str, level: int, layer_channels: list[tuple[int, int]], configuration: UNetConfiguration
    ) -> None:
        super().__init__()
        channels = configuration.block_channels[level]
        layers = range(len(layer_channels))
        self.resnets = nn.ModuleList(
            Resnet(f"{place}.resnets.{layer}", *layer_channels[layer], configuration) for layer in layers
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(
                f"{place}.attentions.{layer}", channels, configuration.attention_heads[level], configuration
            )
            for layer in layers
            if configuration.cross_attention[level]
        )
        self.motion_modules = nn.ModuleList(
            MotionModule(f"{place}.motion_modules.{layer}", channels, configuration)
            for layer in layers
            if configuration.motion[level]
        )

    def run_layer(self, layer: int, hidden: Tensor, conditions: Conditions) -> Tensor:
        """Map [rows, in channels of the layer, height, width] to [rows, channels of the level, height, width]."""
        hidden = self.resnets[layer](hidden, conditions.time)
        if self.attentions:
            hidden = self.attentions[layer](hidden, conditions.prompt)
        if self.motion_modules:
            hidden = self.motion_modules[layer](hidden, conditions.attend)
        return hidden


class DownBlock(Block):
    """A level on the way down. Leaves every layer's result as a skip connection."""

    def __init__(self, level: int, configuration: UNetConfiguration) -> None:
        channels = configuration.block_channels
        before = channels[max(level - 1, 0)]
        inputs = [before, *[channels[level]] * (configuration.layers_per_block - 1)]
        layer_channels = [(width, channels[level]) for width in inputs]
        super().__init__(f"down_blocks.{level}", level, layer_channels, configuration)
        last = level == len(channels) - 1
        self.downsamplers = nn.ModuleList(
            []
            if last
            else [Downsample2D(channels[level], use_conv=True, out_channels=channels[level], padding=1, name="op")]
        )

    def forward(self, hidden: Tensor, skips: list[Tensor], conditions: Conditions) -> Tensor:
        """Map [rows, channels, height, width] one level down; appends to ``skips``."""
        for layer in range(len(self.resnets)):
            hidden = self.run_layer(layer, hidden, conditions)
            skips.append(hidden)
        for downsampler in self.downsamplers:
            hidden = downsampler(hidden)
            skips.append(hidden)
        return hidden


class UpBlock(Block):
    """A level on the way up. Takes back one skip connection per layer."""

    def __init__(self, index: int, configuration: UNetConfiguration) -> None:
        channels = configuration.block_channels
        level = len(channels) - 1 - index
        own, below = channels[level], channels[min(level + 1, len(channels) - 1)]
        hidden = [below, *[own] * configuration.layers_per_block]
        skips = [*[own] * configuration.layers_per_block, channels[max(level - 1, 0)]]
        layer_channels = [(width + skip, own) for width, skip in zip(hidden, skips, strict=True)]
        super().__init__(f"up_blocks.{index}", level, layer_channels, configuration)
        self.upsamplers = nn.ModuleList([] if level == 0 else [Upsample2D(own, use_conv=True, out_channels=own)])

    def forward(self, hidden: Tensor, skips: list[Tensor], conditions: Conditions) -> Tensor:
        """Map [rows, channels, height, width] one level up; pops from ``skips``."""
        for layer in range(len(self.resnets)):
            hidden = self.run_layer(layer, torch.cat([hidden, skips.pop()], dim=1), conditions)
        for upsampler in self.upsamplers:
            hidden = upsampler(hidden)
        return hidden


class MidBlock(nn.Module):
    """The bottom: resnet, spatial transformer, resnet. No motion module."""

    def __init__(self, configuration: UNetConfiguration) -> None:
        super().__init__()
        channels, heads = configuration.block_channels[-1], configuration.attention_heads[-1]
        self.resnets = nn.ModuleList(
            Resnet(f"mid_block.resnets.{index}", channels, channels, configuration) for index in range(2)
        )
        self.attentions = nn.ModuleList([SpatialTransformer("mid_block.attentions.0", channels, heads, configuration)])

    def forward(self, hidden: Tensor, conditions: Conditions) -> Tensor:
        """Map [rows, channels, height, width] to the same shape."""
        hidden = self.resnets[0](hidden, conditions.time)
        hidden = self.attentions[0](hidden, conditions.prompt)
        return self.resnets[1](hidden, conditions.time)


class CausalUNet(nn.Module):
    """Live2Diff's UNet; its state dict has the reference's keys.

    Rows are independent of each other everywhere except in ``conditions.attend``. What does not depend on the frame is
    computed by ``embed_time``, ``embed_prompt`` and ``embed_depth`` and handed to ``forward``.
    """

    def __init__(self, configuration: UNetConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        channels = configuration.block_channels
        levels = range(len(channels))
        self.conv_in = nn.Conv2d(configuration.in_channels, channels[0], 3, padding=1)
        self.flow_conv_in = DepthEmbedding(configuration.in_channels, channels[0])
        self.time_proj = Timesteps(channels[0], configuration.flip_sin_to_cos, configuration.frequency_shift)
        self.time_embedding = TimestepEmbedding(channels[0], configuration.time_channels)
        self.down_blocks = nn.ModuleList(DownBlock(level, configuration) for level in levels)
        self.mid_block = MidBlock(configuration)
        self.up_blocks = nn.ModuleList(UpBlock(index, configuration) for index in levels)
        self.conv_norm_out = nn.GroupNorm(configuration.norm_groups, channels[0], eps=configuration.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], configuration.out_channels, 3, padding=1)

    def forward(self, sample: Tensor, depth_features: Tensor, conditions: Conditions) -> Tensor:
        """Predict the noise in ``sample``.

        Args:
            sample: noised latents, [rows, in channels, height, width], sides divisible by 2 ^ (levels - 1).
            depth_features: what ``embed_depth`` gave for each row's frame, [rows, first channels, height, width].
            conditions: the rest; ``conditions.attend`` gathers the new keys and values.

        Returns:
            [rows, out channels, height, width].
        """
        hidden = self.conv_in(sample) + depth_features
        skips = [hidden]
        for block in self.down_blocks:
            hidden = block(hidden, skips, conditions)
        hidden = self.mid_block(hidden, conditions)
        for block in self.up_blocks:
            hidden = block(hidden, skips, conditions)
        return self.conv_out(silu(self.conv_norm_out(hidden)))

    def embed_time(self, timesteps: Tensor) -> dict[str, Tensor]:
        """Map timesteps, [rows] int, to every resnet's time projection, [rows, channels], by the resnet's place."""
        # The sinusoids are computed in float32, as the reference does, whatever the weights' dtype.
        embedding = self.time_embedding(self.time_proj(timesteps).to(self.conv_in.weight.dtype))
        return {resnet.place: resnet.project_time(embedding) for resnet in self.resnets()}

    def embed_prompt(self, embeddings: Tensor) -> dict[str, KeyValue]:
        """Map text embeddings, [rows, tokens, channels], to every spatial transformer's keys and values, by place."""
        return {attention.place: attention.project_prompt(embeddings) for attention in self.spatial_transformers()}

    def embed_depth(self, depth_latent: Tensor) -> Tensor:
        """Map depth latents, [frames, in channels, height, width], to ``forward``'s depth features."""
        return self.flow_conv_in(depth_latent)

    def resnets(self) -> Iterator[Resnet]:
        """All residual blocks, in the order of the state dict's groups: down, mid, up."""
        return (module for module in self._in_frame_order() if isinstance(module, Resnet))

    def spatial_transformers(self) -> Iterator[SpatialTransformer]:
        """All spatial transformers: down, mid, up."""
        return (module for module in self._in_frame_order() if isinstance(module, SpatialTransformer))

    def temporal_attentions(self) -> Iterator[tuple[int, TemporalAttention]]:
        """All temporal attentions with their level, in the order of the caches: down blocks, then up blocks."""
        levels = len(self.down_blocks)
        for index, block in enumerate([*self.down_blocks, *self.up_blocks]):
            level = index if index < levels else 2 * levels - 1 - index
            yield from ((level, module) for module in block.modules() if isinstance(module, TemporalAttention))

    def _in_frame_order(self) -> Iterator[nn.Module]:
        for part in (self.down_blocks, self.mid_block, self.up_blocks):
            yield from part.modules()
