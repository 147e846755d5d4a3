"""Temporal attention: one function for the stream, one for warm-up, and the module that calls whichever it is given.

Position is added when a key or value is read (Live2Diff, arXiv 2407.08701, section 4; see docs/frame-path.md):
``k = W_k·x + W_k·pe[p]``, and the same for q and v. So a cache holds ``W·x``, and a frame's position may change while
its cached keys stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]


class PositionTables(NamedTuple):
    """``W·pe`` for q, k and v, each [window, channels]."""

    q: Tensor
    k: Tensor
    v: Tensor


class TemporalAttend(Protocol):
    """How a temporal attention looks at other frames; the network is handed one and asks no further."""

    def __call__(self, place: str, q: Tensor, k: Tensor, v: Tensor, tables: PositionTables) -> Tensor:
        """Attend at ``place``; q, k, v and the result are [rows, positions, channels], without position."""


def streaming_attention(
    q: Tensor,  # [rows, positions, channels], k and v alike
    k: Tensor,
    v: Tensor,
    past_k: Tensor,  # [rows, window, positions, channels], past_v alike
    past_v: Tensor,
    tables: PositionTables,
    position: Tensor,  # [rows] int
    past_position: Tensor,  # [rows, window] int
    past_bias: Tensor,  # [rows, window], 0 or −inf
    heads: int,
) -> Tensor:
    """Let each row's frame attend to its cached past and to itself; return [rows, positions, channels]."""
    here_q = q + tables.q[position].unsqueeze(1)
    here_k = k + tables.k[position].unsqueeze(1)
    here_v = v + tables.v[position].unsqueeze(1)
    keys = torch.cat([past_k + tables.k[past_position].unsqueeze(2), here_k.unsqueeze(1)], dim=1)
    values = torch.cat([past_v + tables.v[past_position].unsqueeze(2), here_v.unsqueeze(1)], dim=1)
    bias = F.pad(past_bias, (0, 1))[:, None, None, None, :]  # the row's own frame is always visible
    out = F.scaled_dot_product_attention(
        _frames_last(here_q.unsqueeze(1), heads),
        _frames_last(keys, heads),
        _frames_last(values, heads),
        attn_mask=bias,
    )
    return out.flatten(2)


def _frames_last(frames: Tensor, heads: int) -> Tensor:
    """[rows, frames, positions, channels] → [rows, positions, heads, frames, channels of a head]."""
    return frames.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4)


def warm_up_attention(q: Tensor, k: Tensor, v: Tensor, tables: PositionTables, heads: int) -> Tensor:
    """Let the warm-up frames attend to each other in both directions, at positions 0, 1, ….

    q, k, v and the result: [frames, positions, channels].
    """
    frames = q.shape[0]

    def by_head(tensor: Tensor, table: Tensor) -> Tensor:  # → [positions, heads, frames, channels of a head]
        return (tensor + table[:frames].unsqueeze(1)).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)

    out = F.scaled_dot_product_attention(by_head(q, tables.q), by_head(k, tables.k), by_head(v, tables.v))
    return out.permute(2, 0, 1, 3).flatten(2)


class StreamingAttend:
    """Attention for one tick. Collects the new slot of every cache; the past is only read.

    Attributes:
        new: after the network ran, place → (k, v), each [rows, positions, channels], in the network's order.
    """

    def __init__(
        self,
        past: Mapping[str, KeyValue],
        position: Tensor,
        past_position: Tensor,
        past_bias: Tensor,
        heads: int,
    ) -> None:
        self._past = past
        self._window = position, past_position, past_bias
        self._heads = heads
        self.new: dict[str, KeyValue] = {}

    def __call__(self, place: str, q: Tensor, k: Tensor, v: Tensor, tables: PositionTables) -> Tensor:
        """Attend at ``place``: see ``TemporalAttend``."""
        self.new[place] = k, v
        return self._attend(q, k, v, *self._past[place], tables)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, tables: PositionTables
    ) -> Tensor:
        return streaming_attention(q, k, v, past_k, past_v, tables, *self._window, self._heads)


class WarmUpAttend:
    """Attention over the warm-up frames. Collects what fills the sinks.

    Attributes:
        new: after the network ran, place → (k, v), each [frames, positions, channels], in the network's order.
    """

    def __init__(self, heads: int) -> None:
        self._heads = heads
        self.new: dict[str, KeyValue] = {}

    def __call__(self, place: str, q: Tensor, k: Tensor, v: Tensor, tables: PositionTables) -> Tensor:
        """Attend at ``place``: see ``TemporalAttend``."""
        self.new[place] = k, v
        return warm_up_attention(q, k, v, tables, self._heads)


class PositionEncoding(nn.Module):
    """The sinusoidal table of the state dict, [1, rows, channels] (Vaswani et al., arXiv 1706.03762, section 3.5)."""

    pe: Tensor

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoidal_table(rows, channels).unsqueeze(0))


def sinusoidal_table(rows: int, channels: int) -> Tensor:
    """Return sines in the even channels and cosines in the odd ones, [rows, channels] float32."""
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angle = torch.arange(rows).unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class TemporalAttention(nn.Module):
    """The projections round a temporal attention, and its position tables.

    ``pe_q``, ``pe_k`` and ``pe_v`` ([window, channels]) are folded from the weights whenever a state dict is loaded;
    they are buffers of the module but no part of its state dict.
    """

    pe_q: Tensor
    pe_k: Tensor
    pe_v: Tensor

    def __init__(self, place: str, channels: int, position_rows: int, window: int) -> None:
        super().__init__()
        self.place = place
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.pos_encoder = PositionEncoding(position_rows, channels)
        for side in ("q", "k", "v"):
            self.register_buffer(f"pe_{side}", torch.empty(window, channels), persistent=False)
        self.fold_positions()
        self.register_load_state_dict_post_hook(_fold_after_loading)  # type: ignore[no-untyped-call]  # torch leaves it unannotated

    @torch.no_grad()
    def fold_positions(self) -> None:
        """Compute ``W·pe`` in float32 and replace the position tables by it, in the weights' dtype."""
        pe = self.pos_encoder.pe[0, : self.pe_q.shape[0]].float()
        for side, projection in (("q", self.to_q), ("k", self.to_k), ("v", self.to_v)):
            table = F.linear(pe, projection.weight.float())
            setattr(self, f"pe_{side}", table.to(projection.weight.dtype))

    def forward(self, hidden: Tensor, attend: TemporalAttend) -> Tensor:
        """Map [rows, positions, channels] to the same shape."""
        q, k, v = self.to_q(hidden), self.to_k(hidden), self.to_v(hidden)
        out = attend(self.place, q, k, v, PositionTables(self.pe_q, self.pe_k, self.pe_v))
        return self.to_out[0](out)


def _fold_after_loading(attention: TemporalAttention, _: object) -> None:
    attention.fold_positions()
