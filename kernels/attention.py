"""Launches temporal attention: streaming over the ring, and among the warm-up frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.launcher import (
    Launcher,
    check_element_type,
    check_head_channels,
    check_row,
    check_rows,
    row_arguments,
)
from live2diff_trt.kernels.tick_parameters import SINK, WINDOW

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

_WARPS = 4  # ATTENTION_THREADS of attention.cuh, in warps


class AttentionLauncher(Launcher):
    """Temporal attention, arithmetic and softmax in float32."""

    def streaming_attention(
        self,
        stream: Stream | GraphBuilder,
        *,
        q: DeviceTensor,
        k: DeviceTensor,
        v: DeviceTensor,
        out: DeviceTensor,
        tables: tuple[DeviceTensor, DeviceTensor, DeviceTensor],
        past_k_rows: DeviceTensor,
        past_v_rows: DeviceTensor,
        parameters: DeviceTensor,
        heads: int,
    ) -> None:
        """Let each row's frame attend to its past and to itself; each active row's k and v go to its slot in the ring.

        Args:
            stream: where to launch.
            q: [rows, positions, channels], without position, of at most 16 rows that may lie in chunks; k, v alike.
            k: keys.
            v: values.
            out: alike; written. No alias of the others.
            tables: ``W·pe`` for q, k and v, each [window, channels].
            past_k_rows: uint64 [at least rows]: addresses of each row's [window, positions, channels] in the ring,
                which is written in place. Slots that are not visible are not read.
            past_v_rows: the same of the values.
            parameters: the tick's, uint8.
            heads: of the channels; kernels exist for heads of 4, 8, 40, 80 and 160 channels.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if no kernel exists for it.
        """
        rows = check_rows("q", q)
        kernel = self._check_attention("streaming_attention", rows, q, k, v, out, tables, heads)
        self._check_ring_rows(rows, past_k_rows=past_k_rows, past_v_rows=past_v_rows)
        self.check_parameters(parameters)
        self.launch(
            stream,
            kernel,
            (_blocks(q, heads), rows, 1),
            (_WARPS * 32, 1, 1),
            *row_arguments(q=q, k=k, v=v, out=out),
            *(table.address for table in tables),
            past_k_rows.address,
            past_v_rows.address,
            parameters.address,
            np.int32(q.shape[1]),
            np.int32(heads),
        )

    def warm_up_attention(
        self,
        stream: Stream | GraphBuilder,
        *,
        q: DeviceTensor,
        k: DeviceTensor,
        v: DeviceTensor,
        out: DeviceTensor,
        tables: tuple[DeviceTensor, DeviceTensor, DeviceTensor],
        past_k_rows: DeviceTensor,
        past_v_rows: DeviceTensor,
        row: int,
        heads: int,
    ) -> None:
        """Let the 8 warm-up frames attend to each other; frame f's k and v go to slot f of one row of the ring.

        Args:
            stream: where to launch.
            q: [8, positions, channels], as for ``streaming_attention``, and the others alike.
            k: keys.
            v: values.
            out: written.
            tables: as for ``streaming_attention``.
            past_k_rows: as for ``streaming_attention``.
            past_v_rows: as for ``streaming_attention``.
            row: of the ring, whose sink is written in place.
            heads: of the channels.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if no kernel exists for it.
        """
        kernel = self._check_attention("warm_up_attention", SINK, q, k, v, out, tables, heads)
        check_row(row)
        self._check_ring_rows(row + 1, past_k_rows=past_k_rows, past_v_rows=past_v_rows)
        self.launch(
            stream,
            kernel,
            (_blocks(q, heads), SINK, 1),
            (_WARPS * 32, 1, 1),
            *row_arguments(q=q, k=k, v=v, out=out),
            *(table.address for table in tables),
            past_k_rows.address,
            past_v_rows.address,
            np.int32(row),
            np.int32(q.shape[1]),
            np.int32(heads),
        )

    def _check_attention(
        self,
        kernel: str,
        rows: int,
        q: DeviceTensor,
        k: DeviceTensor,
        v: DeviceTensor,
        out: DeviceTensor,
        tables: tuple[DeviceTensor, ...],
        heads: int,
    ) -> str:
        """Check every tensor; return the kernel's entry point for this dtype and size of heads."""
        dtype = check_element_type("q", q)
        if len(q.shape) != 3:
            raise DeviceTensorError(f"q is {list(q.shape)}", "Pass [rows, positions, channels]")
        positions, channels = q.shape[1:]
        for name, tensor in {"q": q, "k": k, "v": v, "out": out}.items():
            self.check(name, tensor, (rows, positions, channels), dtype)
        for name, table in zip(("pe_q", "pe_k", "pe_v"), tables, strict=True):
            self.check_dense(name, table, (WINDOW, channels), dtype)
        return f"{kernel}_{dtype}_{check_head_channels(channels, heads)}"

    def _check_ring_rows(self, rows: int, **tables: DeviceTensor) -> None:
        for name, table in tables.items():
            self.check_dense(name, table, (max(rows, *table.shape[:1]),), "uint64")


def _blocks(q: DeviceTensor, heads: int) -> int:
    """Return how many blocks cover all heads at all positions of a row; HeadLayout of attention.cuh in integers."""
    return -(-q.shape[1] * heads // (_WARPS * (32 // lanes_of_head(q.shape[2] // heads, q.item_bytes))))


def lanes_of_head(head_channels: int, item_bytes: int) -> int:
    """Return how many lanes share a head."""
    vectors = -(-head_channels * item_bytes // 16)
    return next(lanes for lanes in (10, 5, 1) if vectors % lanes == 0)
