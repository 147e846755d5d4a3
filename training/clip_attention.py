"""Temporal attention over a whole clip at once, equal to what the stream computes frame by frame over its kv-cache.

The stream's attention (``model/temporal_attention.py``) reads cached keys at positions that follow from how long ago
their frame came. Over a clip that is known beforehand, so one masked attention gives the same for all of its frames:

    score(n, j) = (q_n + pe_q[p_n]) · (k_j + pe_k[p_nj]),   out_n = Σ_j softmax(score)_nj (v_j + pe_v[p_nj])

Products with position tables are taken apart from those with frames, so that no key is placed more than once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from live2diff_trt.model.temporal_attention import PositionTables
from live2diff_trt.model.unet import CausalUNet

Sight = Literal["cache", "alone", "future"]
"""What a frame sees of others: what its kv-cache holds, nothing, or frames that are yet to come, too."""


@dataclass(frozen=True, eq=False)
class ClipView:
    """Which frames of a clip each frame sees, and at which positions.

    Attributes:
        visible: bool [frames, frames]: the row's frame sees the column's. Each sees itself.
        position: int64 [frames, frames]: of the column's frame, as the row's sees it; 0 where it does not.
    """

    visible: Tensor
    position: Tensor

    def to(self, device: torch.device) -> ClipView:
        """Return the view on a device."""
        return ClipView(self.visible.to(device), self.position.to(device))


def see_clip(frames: int, window: int, sink: int, sight: Sight = "cache") -> ClipView:
    """Return the view of a clip that begins with ``sink`` warm-up frames.

    Those see each other in both directions, at positions 0 to sink − 1. With n frames streamed before it, a later one
    is at sink + min(n, rolling − 1) and sees the warm-up frames, and the streamed ones back to position ``sink``
    (Live2Diff, arXiv 2407.08701, section 4; the closed form of ``runtime/kv_window.py``). With ``future``, it is in the
    middle of the rolling part, and as many streamed frames after it are visible as before it. ``alone`` is ``cache``
    with nothing in it.
    """
    rolling = window - sink
    index = torch.arange(frames)
    streamed = index - sink  # frames streamed before this one
    place = torch.where(
        streamed < 0, index, sink + streamed.clamp(max=rolling // 2 if sight == "future" else rolling - 1)
    )
    relative = place[:, None] + index[None, :] - index[:, None]
    in_sink = index[None, :] < sink
    is_warm_up = index[:, None] < sink
    position = torch.where(in_sink, index[None, :], relative)
    is_streamed = ~is_warm_up & ~in_sink & (relative >= sink) & (relative < window)
    visible = in_sink | is_streamed
    if sight == "cache":
        visible &= is_warm_up | (index[None, :] <= index[:, None])
    if sight == "alone":
        visible = torch.eye(frames, dtype=torch.bool)
    return ClipView(visible, torch.where(visible, position, 0))


class ClipAttend:
    """Attention for clips whose frames are rows, clip by clip: see ``TemporalAttend``. Gathers nothing."""

    def __init__(self, view: ClipView, heads: int) -> None:
        self._view = view
        self._heads = heads

    def __call__(self, place: str, q: Tensor, k: Tensor, v: Tensor, tables: PositionTables) -> Tensor:
        """Attend at ``place``; q, k, v and the result are [clips · frames, positions, channels]."""
        visible, position = self._view.visible, self._view.position
        # [frames, others, window]: 1 at the position of the other. Products with it take the place of gathering and
        # scattering, whose gradients are slow.
        placed = (position[..., None] == torch.arange(len(tables.k), device=position.device)).to(q.dtype)
        query = self._by_head(q) + placed.diagonal().T @ self._table_by_head(tables.q)
        keys, values = self._by_head(k), self._by_head(v)
        at_position = query @ self._table_by_head(tables.k).transpose(-1, -2)
        picked = torch.einsum("...np,njp->...nj", at_position, placed)
        scores = (query @ keys.transpose(-1, -2) + picked) * query.shape[-1] ** -0.5
        shares = scores.float().masked_fill(~visible, -torch.inf).softmax(dim=-1).to(values.dtype)
        to_position = torch.einsum("...nj,njp->...np", shares, placed)  # how much attention goes to each position
        out = shares @ values + to_position @ self._table_by_head(tables.v)
        return out.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(2)

    def _by_head(self, rows: Tensor) -> Tensor:
        """[clips · frames, positions, channels] → [clips, positions, heads, frames, channels of a head]."""
        frames = len(self._view.visible)
        return rows.unflatten(0, (-1, frames)).unflatten(-1, (self._heads, -1)).permute(0, 2, 3, 1, 4)

    def _table_by_head(self, table: Tensor) -> Tensor:
        """[window, channels] → [heads, window, channels of a head]."""
        return table.unflatten(-1, (self._heads, -1)).transpose(0, 1)


def fold_for_training(unet: CausalUNet) -> None:
    """Compute every ``W·pe`` anew, in place, so that gradients reach the weights through it."""
    for _, attention in unet.temporal_attentions():
        pe = attention.pos_encoder.pe[0, : attention.pe_q.shape[0]]
        projections: Mapping[str, Tensor] = {
            "pe_q": attention.to_q.weight,
            "pe_k": attention.to_k.weight,
            "pe_v": attention.to_v.weight,
        }
        for name, weight in projections.items():
            setattr(attention, name, functional.linear(pe, weight))
