"""The networks that can be exported: every part small, or the real sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from live2diff_trt.bundle.spec import FloatName, StreamSpec, check_size
from live2diff_trt.export.autoencoder import AutoencoderKind, latent_channels
from live2diff_trt.export.depth import DepthKind, depth_size
from live2diff_trt.export.tokenizer import TextKind
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.stream_spec import describe_network

PresetName = Literal["tiny", "sd15"]
PROMPT_TOKENS = 77


@dataclass(frozen=True)
class Preset:
    """What each part of a bundle is, and the stream it is exported for unless told otherwise."""

    unet: UNetConfiguration
    autoencoder: AutoencoderKind
    depth: DepthKind
    text: TextKind
    dtype: FloatName
    width: int
    height: int
    step_list: tuple[int, ...] = (30, 40)

    def with_autoencoder(self, kind: AutoencoderKind) -> Preset:
        """Return the preset with another autoencoder, and a UNet for its latents."""
        channels = latent_channels(kind)
        unet = replace(self.unet, in_channels=channels, out_channels=channels)
        return replace(self, autoencoder=kind, unet=unet)

    def spec(self) -> StreamSpec:
        """Return the stream's spec; raise SpecError where size, step list or dtype can't be had."""
        # The latent grid follows from the size only after the size was found valid: SpecError must come first.
        check_size(self.width, self.height)
        return StreamSpec(
            width=self.width,
            height=self.height,
            step_list=self.step_list,
            dtype=self.dtype,
            prompt_tokens=PROMPT_TOKENS,
            depth_size=depth_size(self.depth),
            **describe_network(self.unet, self.height // 8, self.width // 8),
        )


TINY = Preset(
    unet=UNetConfiguration(
        in_channels=16,
        out_channels=16,
        block_channels=(64, 64),
        layers_per_block=1,
        cross_attention=(True, False),
        attention_heads=(8, 8),
        motion=(True, False),
        cross_attention_channels=32,
        norm_groups=8,
    ),
    autoencoder="tiny",
    depth="tiny",
    text="tiny",
    dtype="float32",
    width=192,
    height=128,
)
SD15 = Preset(
    unet=UNetConfiguration(),
    autoencoder="taesd",
    depth="dpt-hybrid",
    text="clip-vit-l",
    dtype="float16",
    width=512,
    height=512,
)
PRESETS: dict[PresetName, Preset] = {"tiny": TINY, "sd15": SD15}
