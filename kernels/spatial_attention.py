"""Launches attention among the positions of a frame, and of a frame to a prompt's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launcher import (
    Launcher,
    check_element_type,
    check_frames,
    check_head_channels,
    row_arguments,
)
from live2diff_trt.kernels.library import KernelError

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

BLOCKS = {40: (128, 128), 80: (64, 128), 160: (32, 64)}
"""Channels of a head → queries and threads of a block; Tiling of spatial_attention.cu. Of float16."""
_PLAIN_THREADS = 128
_PLAIN_LANES = {4: 1, 8: 1, 40: 4, 80: 8, 160: 8}  # that share a query where there are no tensor cores


class SpatialAttentionLauncher(Launcher):
    """Attention within a row: softmax in float32; products of float16 on tensor cores, with sums in float32."""

    def spatial_attention(
        self,
        stream: Stream | GraphBuilder,
        *,
        q: DeviceTensor,
        k: DeviceTensor,
        v: DeviceTensor,
        out: DeviceTensor,
        heads: int,
    ) -> None:
        """Let each position of each row attend to all tokens: softmax(q kᵀ / sqrt(head channels)) v of every head.

        Args:
            stream: where to launch.
            q: [rows, positions, channels], of at most 16 rows that may lie in chunks.
            k: [any rows, tokens, channels]: row r attends to row r modulo these rows. May lie in chunks.
            v: as k.
            out: as q; written. No alias of the others.
            heads: of the channels; kernels exist for heads of 4, 8, 40, 80 and 160 channels.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if no kernel exists for it.
        """
        dtype = check_element_type("q", q)
        rows, positions, channels = check_frames("q", q)
        key_rows, tokens, _ = check_frames("k", k)
        for name, tensor in {"q": q, "out": out}.items():
            self.check(name, tensor, (rows, positions, channels), dtype)
        for name, tensor in {"k": k, "v": v}.items():
            self.check(name, tensor, (key_rows, tokens, channels), dtype)
        head_channels = check_head_channels(channels, heads)
        if max(positions, tokens) * channels >= 2**31:
            raise KernelError(f"q and k have {positions} and {tokens} positions", "A row takes fewer than 2³¹ elements")
        queries, threads = _block(head_channels, dtype)
        self.launch(
            stream,
            f"spatial_attention_{dtype}_{head_channels}",
            (-(-positions // queries), heads, rows),
            (threads, 1, 1),
            *row_arguments(q=q, k=k, v=v, out=out),
            np.int32(key_rows),
            np.int32(positions),
            np.int32(tokens),
            np.int32(heads),
        )


def _block(head_channels: int, dtype: str) -> tuple[int, int]:
    """Return how many queries a block has, and how many threads."""
    if dtype == "float16" and head_channels in BLOCKS:
        return BLOCKS[head_channels]
    return _PLAIN_THREADS // _PLAIN_LANES[head_channels], _PLAIN_THREADS
