"""diffusers' spatial blocks, fed with what was hoisted: time projections and prompt keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.layout import to_picture, to_tokens
from live2diff_trt.model.temporal_attention import KeyValue


class Resnet(ResnetBlock2D):  # type: ignore[misc]  # diffusers is untyped
    """diffusers' residual block whose time projection arrives computed: it does not depend on the frame."""

    def __init__(self, place: str, in_channels: int, out_channels: int, configuration: UNetConfiguration) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            temb_channels=configuration.time_channels,
            groups=configuration.norm_groups,
            eps=configuration.norm_eps,
        )
        self.place = place

    def project_time(self, embedding: Tensor) -> Tensor:
        """Map the time embedding, [rows, time channels], to what ``forward`` takes: [rows, channels]."""
        return self.time_emb_proj(silu(embedding))

    def forward(self, hidden: Tensor, time: Mapping[str, Tensor]) -> Tensor:
        """Map [rows, in channels, height, width] to [rows, out channels, height, width].

        ``time`` has the time projection of every resnet by its place, [rows, out channels].
        """
        residual = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        hidden = self.conv1(silu(self.norm1(hidden))) + time[self.place][:, :, None, None]
        return residual + self.conv2(silu(self.norm2(hidden)))


class SelfAttentionProcessor:
    """Attention among the positions of one frame."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
    ) -> Tensor:
        """Map [rows, positions, channels] to the same shape."""
        keys, values = attn.to_k(hidden_states), attn.to_v(hidden_states)
        return _attend(attn, attn.to_q(hidden_states), keys, values)


class PromptAttentionProcessor:
    """Cross-attention whose keys and values arrive computed: they depend on the prompt alone."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: KeyValue,
        attention_mask: None = None,
    ) -> Tensor:
        """Attend from [rows, positions, channels] to (keys, values), each [rows, tokens, channels]."""
        return _attend(attn, attn.to_q(hidden_states), *encoder_hidden_states)


def _attend(attn: Attention, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[rows, positions, channels] and twice [rows, tokens, channels] → [rows, positions, channels], projected."""

    def by_head(tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    out = scaled_dot_product_attention(by_head(query), by_head(keys), by_head(values))
    return attn.to_out[0](out.transpose(1, 2).flatten(2))


class SpatialTransformer(Transformer2DModel):  # type: ignore[misc]  # diffusers is untyped
    """diffusers' spatial transformer with the prompt's keys and values hoisted."""

    def __init__(self, place: str, channels: int, heads: int, configuration: UNetConfiguration) -> None:
        super().__init__(
            num_attention_heads=heads,
            attention_head_dim=channels // heads,
            in_channels=channels,
            num_layers=1,
            norm_num_groups=configuration.norm_groups,
            cross_attention_dim=configuration.cross_attention_channels,
            use_linear_projection=configuration.use_linear_projection,
        )
        self.place = place
        self.channels = channels
        self.transformer_blocks[0].attn1.set_processor(SelfAttentionProcessor())
        self.cross_attention.set_processor(PromptAttentionProcessor())

    @property
    def cross_attention(self) -> Attention:
        """The attention from picture to prompt."""
        return self.transformer_blocks[0].attn2

    def project_prompt(self, embeddings: Tensor) -> KeyValue:
        """Map text embeddings, [rows, tokens, text channels], to keys and values, each [rows, tokens, channels]."""
        return self.cross_attention.to_k(embeddings), self.cross_attention.to_v(embeddings)

    def forward(self, hidden: Tensor, prompt: Mapping[str, KeyValue]) -> Tensor:
        """Map [rows, channels, height, width] to the same shape.

        ``prompt`` has the keys and values of every spatial transformer by its place, each [rows, tokens, channels].
        """
        tokens = _project(self.proj_in, to_tokens(self.norm(hidden)))
        for block in self.transformer_blocks:
            tokens = block(tokens, encoder_hidden_states=prompt[self.place])
        return to_picture(to_tokens(hidden) + _project(self.proj_out, tokens), hidden.shape[2])


def _project(projection: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a linear layer, or a convolution of 1x1 as the linear layer that it is, to [rows, positions, channels]."""
    if isinstance(projection, nn.Conv2d):
        return linear(tokens, projection.weight.flatten(1), projection.bias)
    return projection(tokens)


class DepthEmbedding(nn.Module):
    """The depth path: a frame's depth latent → what is added to the UNet's first convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = (16, 16, 32, 32, 96, 96, 256)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, depth_latent: Tensor) -> Tensor:
        """Map [frames, latent channels, height, width] to [frames, out channels, height, width]."""
        hidden = silu(self.conv_in(depth_latent))
        for block in self.blocks:
            hidden = silu(block(hidden))
        return self.conv_out(hidden)
