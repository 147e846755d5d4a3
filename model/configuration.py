"""The UNet's configuration, read from the reference's own keys. What it can't honour it refuses, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from live2diff_trt.model.errors import ConfigurationError

_REMEDY = "Use a configuration of the Live2Diff family (Stable Diffusion 1.5 with streaming motion modules)"
MOTION_NORM_GROUPS = 32
"""Groups of every motion module's GroupNorm, whatever ``norm_num_groups`` says."""

# Switches of the reference that change the network, with the only value under which ours is the same network.
_FIXED = {
    "center_input_sample": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "only_cross_attention": False,
    "dual_cross_attention": False,
    "upcast_attention": False,
    "class_embed_type": None,
    "num_class_embeds": None,
    "resnet_time_scale_shift": "default",
    "num_attention_heads": None,
    "time_cond_proj_dim": None,
    "transformer_layers_per_block": 1,
    "mid_block_type": ("UNetMidBlock3DCrossAttn", "UNetMidBlock2DCrossAttn"),
    "cond_mapping": True,
    "use_inflated_groupnorm": True,
    "use_motion_module": True,
    "motion_module_mid_block": False,
    "motion_module_decoder_only": False,
    "motion_module_type": "Streaming",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
}
_REQUIRED = (
    "block_out_channels",
    "layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "down_block_types",
    "up_block_types",
)
_FIXED_MOTION = {
    "num_transformer_block": 1,
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
    "attention_class_name": "stream",
}


@dataclass(frozen=True)
class UNetConfiguration:
    """The shape of a causal UNet. Defaults are Stable Diffusion 1.5 with Live2Diff's motion modules.

    Attributes:
        cross_attention: per down block, whether it has spatial transformers; up blocks mirror it.
        attention_heads: per down block, heads of the spatial transformers (the reference calls it head_dim).
        motion: per down block, whether it has motion modules; up blocks mirror it.
        motion_heads, motion_attentions: heads of a temporal attention; temporal attentions of a motion module.
        position_rows: rows of the sinusoidal position table in the state dict; ``window`` of them are used.
        window, sink: frames a kv-cache holds; how many of them are warm-up frames.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention: tuple[bool, ...] = (True, True, True, False)
    attention_heads: tuple[int, ...] = (8, 8, 8, 8)
    cross_attention_channels: int = 768
    use_linear_projection: bool = False
    norm_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    frequency_shift: float = 0
    motion: tuple[bool, ...] = (True, True, True, True)
    motion_heads: int = 8
    motion_attentions: int = 2
    position_rows: int = 24
    window: int = 16
    sink: int = 8

    def __post_init__(self) -> None:
        levels = len(self.block_channels)
        if not levels or any(len(each) != levels for each in (self.cross_attention, self.attention_heads, self.motion)):
            raise ConfigurationError("block types, attention heads or motion modules are not one per level", _REMEDY)
        if min(self.norm_groups, self.motion_heads, *self.attention_heads) < 1 or not 0 < self.sink < self.window:
            raise ConfigurationError("groups, heads or the sink of the window are out of range", _REMEDY)
        problems = [
            f"{channels} channels do not divide into {divisor} {what}"
            for level, channels in enumerate(self.block_channels)
            for divisor, what, needed in (
                (self.norm_groups, "norm groups", True),
                (self.attention_heads[level], "attention heads", self.cross_attention[level]),
                (MOTION_NORM_GROUPS, "groups of a motion module's norm", self.motion[level]),
                (self.motion_heads, "heads of a temporal attention", self.motion[level]),
            )
            if needed and channels % divisor
        ]
        if self.position_rows < self.window:
            problems.append(f"{self.position_rows} position rows are fewer than the window of {self.window}")
        if problems:
            raise ConfigurationError("; ".join(problems), _REMEDY)

    @property
    def time_channels(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_channels[0]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_reference(cls, unet: Mapping[str, Any], additional: Mapping[str, Any]) -> UNetConfiguration:
        """Read the reference's keys: diffusers' UNet configuration and the reference's ``unet_additional_kwargs``.

        Raises:
            ConfigurationError: listing every key that asks for another network.
        """
        missing = [key for key in _REQUIRED if unet.get(key) is None]
        if missing:
            raise ConfigurationError(f"the UNet's configuration lacks {', '.join(missing)}", _REMEDY)
        motion = dict(additional.get("motion_module_kwargs", {}))
        switches = {**unet, **additional}
        _refuse_other_networks(switches, motion)
        levels = len(unet["block_out_channels"])
        cross_attention = _read_block_types(unet, levels)
        heads = unet["attention_head_dim"]
        resolutions = additional.get("motion_module_resolutions", [1, 2, 4, 8])
        cache = motion.get("attention_kwargs", {})
        return cls(
            in_channels=unet.get("in_channels", 4),
            out_channels=unet.get("out_channels", 4),
            block_channels=tuple(unet["block_out_channels"]),
            layers_per_block=unet["layers_per_block"],
            cross_attention=cross_attention,
            attention_heads=(heads,) * levels if isinstance(heads, int) else tuple(heads),
            cross_attention_channels=unet["cross_attention_dim"],
            use_linear_projection=unet.get("use_linear_projection", False),
            norm_groups=unet.get("norm_num_groups", 32),
            norm_eps=unet.get("norm_eps", 1e-5),
            flip_sin_to_cos=unet.get("flip_sin_to_cos", True),
            frequency_shift=unet.get("freq_shift", 0),
            motion=tuple(2**level in resolutions for level in range(levels)),
            motion_heads=motion.get("num_attention_heads", 8),
            motion_attentions=len(motion.get("attention_block_types", ("Temporal_Self", "Temporal_Self"))),
            position_rows=motion.get("temporal_position_encoding_max_len", 24),
            window=cache.get("window_size", 16),
            sink=cache.get("sink_size", 8),
        )


def _refuse_other_networks(switches: Mapping[str, Any], motion: Mapping[str, Any]) -> None:
    problems = [
        f"{key} is {values[key]!r}, not {wanted!r}"
        for values, fixed in ((switches, _FIXED), (motion, _FIXED_MOTION))
        for key, wanted in fixed.items()
        if key in values and values[key] != wanted and not (isinstance(wanted, tuple) and values[key] in wanted)
    ]
    kinds = motion.get("attention_block_types", ())
    if any(kind != "Temporal_Self" for kind in kinds):
        problems.append(f"attention_block_types is {list(kinds)}, not all 'Temporal_Self'")
    if problems:
        raise ConfigurationError("this UNet is another network: " + "; ".join(problems), _REMEDY)


def _read_block_types(unet: Mapping[str, Any], levels: int) -> tuple[bool, ...]:
    down = [_has_cross_attention(kind, "Down") for kind in unet["down_block_types"]]
    up = [_has_cross_attention(kind, "Up") for kind in unet["up_block_types"]]
    if len(down) != levels or up != down[::-1]:
        raise ConfigurationError(
            "up_block_types do not mirror down_block_types, one for each of block_out_channels", _REMEDY
        )
    return tuple(down)


def _has_cross_attention(kind: str, direction: str) -> bool:
    for dimensions in ("2D", "3D"):
        if kind == f"CrossAttn{direction}Block{dimensions}":
            return True
        if kind == f"{direction}Block{dimensions}":
            return False
    raise ConfigurationError(f"block type {kind!r} is unknown", _REMEDY)
