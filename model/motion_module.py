"""The motion module: what makes a spatial network see time. Module names are the reference's state-dict keys."""

from __future__ import annotations

from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from live2diff_trt.model.configuration import MOTION_NORM_GROUPS, UNetConfiguration
from live2diff_trt.model.layout import to_picture, to_tokens
from live2diff_trt.model.temporal_attention import TemporalAttend, TemporalAttention


class TemporalTransformerBlock(nn.Module):
    """[LayerNorm, temporal attention, + residual] for each attention, then LayerNorm, GEGLU, + residual."""

    def __init__(self, place: str, channels: int, configuration: UNetConfiguration) -> None:
        super().__init__()
        count = configuration.motion_attentions
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(
                f"{place}.attention_blocks.{index}",
                channels,
                configuration.position_rows,
                configuration.window,
            )
            for index in range(count)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(count))
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, hidden: Tensor, attend: TemporalAttend) -> Tensor:
        """Map [rows, positions, channels] to the same shape."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            hidden = hidden + attention(norm(hidden), attend)
        return hidden + self.ff(self.ff_norm(hidden))


class TemporalTransformer(nn.Module):
    """GroupNorm per frame, a projection in, one transformer block, a projection out, + the input."""

    def __init__(self, place: str, channels: int, configuration: UNetConfiguration) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(MOTION_NORM_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            [TemporalTransformerBlock(f"{place}.transformer_blocks.0", channels, configuration)]
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden: Tensor, attend: TemporalAttend) -> Tensor:
        """Map [rows, channels, height, width] to the same shape."""
        tokens = self.proj_in(to_tokens(self.norm(hidden)))
        for block in self.transformer_blocks:
            tokens = block(tokens, attend)
        return to_picture(to_tokens(hidden) + self.proj_out(tokens), hidden.shape[2])


class MotionModule(nn.Module):
    """A temporal transformer under the reference's name for it."""

    def __init__(self, place: str, channels: int, configuration: UNetConfiguration) -> None:
        super().__init__()
        self.channels = channels
        self.temporal_transformer = TemporalTransformer(f"{place}.temporal_transformer", channels, configuration)

    def forward(self, hidden: Tensor, attend: TemporalAttend) -> Tensor:
        """Map [rows, channels, height, width] to the same shape."""
        return self.temporal_transformer(hidden, attend)
