"""The spatial half of the causal UNet as diffusers' own class: it is what styles were trained on and merge into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from diffusers import UNet2DConditionModel

from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.model.configuration import UNetConfiguration

_TEMPORAL_FIELDS = {"motion", "motion_heads", "motion_attentions", "position_rows", "window", "sink"}


def build_spatial_unet(configuration: UNetConfiguration) -> UNet2DConditionModel:
    """Build diffusers' UNet of the same spatial part, on torch's default device; its keys are those of CausalUNet."""
    kinds = ["CrossAttn" if attends else "" for attends in configuration.cross_attention]
    return UNet2DConditionModel(
        in_channels=configuration.in_channels,
        out_channels=configuration.out_channels,
        block_out_channels=configuration.block_channels,
        layers_per_block=configuration.layers_per_block,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        attention_head_dim=configuration.attention_heads,  # the number of heads; diffusers keeps the wrong name
        cross_attention_dim=configuration.cross_attention_channels,
        use_linear_projection=configuration.use_linear_projection,
        norm_num_groups=configuration.norm_groups,
        norm_eps=configuration.norm_eps,
        flip_sin_to_cos=configuration.flip_sin_to_cos,
        freq_shift=configuration.frequency_shift,
    )


def check_spatial_configuration(found: Mapping[str, Any], wanted: UNetConfiguration, origin: str) -> None:
    """Compare a UNet's config.json with the preset; shapes of weights do not tell all of it.

    Raises:
        ConfigurationError: if it is another kind of network.
        CheckpointError: naming every value that differs.
    """
    other = UNetConfiguration.from_reference(found, {})
    different = [
        f"{field.name} is {getattr(other, field.name)}, not {getattr(wanted, field.name)}"
        for field in fields(UNetConfiguration)
        if field.name not in _TEMPORAL_FIELDS and getattr(other, field.name) != getattr(wanted, field.name)
    ]
    if different:
        raise CheckpointError(
            f"{origin} is not the preset's UNet: " + "; ".join(different), "Name a base model of the preset's sizes"
        )
