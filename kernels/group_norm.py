"""Launches group normalisation: at once where a block can keep a group, else in two launches, statistics first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.launcher import (
    Launcher,
    check_element_type,
    check_frames,
    check_rows,
    row_arguments,
)
from live2diff_trt.kernels.library import VECTOR_BYTES, KernelError

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

MAXIMUM_CHUNKS = 64
"""Of positions, whose statistics are put together; the same constant as in group_norm.cu."""
MAXIMUM_GROUPS = 128
"""The same constant as in group_norm.cu."""
_MAXIMUM_THREADS = 640  # of a block: the same constant as in group_norm.cu
_USUAL_THREADS = 512
_LEAST_POSITIONS = 2  # that a thread should have
_MAXIMUM_THREADS_AT_ONCE = 1024  # of a block: the same constants as in group_norm_once.cu
_KEPT_BYTES = 128  # per thread
_MOST_VECTORS_AT_ONCE = 16  # per thread: from more on, two launches, which spread over the GPU, are as fast


def group_norm_workspace(rows: int, groups: int) -> tuple[int]:
    """Return the shape of the float32 workspace that ``group_norm`` takes: of each row's statistics."""
    return (rows * (2 * MAXIMUM_CHUNKS + 1) * groups,)


@dataclass(frozen=True)
class AtOnce:
    """How a block keeps a group: by its shape only, so that every GPU adds in the same order.

    Attributes:
        vector_bytes: of channels, which a thread reads at a time.
        lanes: positions that the block reads at a time.
        threads: of the block; a thread has one vector of channels, at every ``lanes``-th position.
    """

    vector_bytes: int
    lanes: int
    threads: int

    @classmethod
    def of(cls, positions: int, group_bytes: int) -> AtOnce | None:
        """Cut a group that has ``group_bytes`` at each position; return None if no block can keep it."""
        vector_bytes = math.gcd(group_bytes, 16)
        vectors = group_bytes // vector_bytes
        if vector_bytes not in VECTOR_BYTES or vectors > _MAXIMUM_THREADS_AT_ONCE:
            return None
        most_lanes = min(_MAXIMUM_THREADS_AT_ONCE // vectors, -(-positions // _LEAST_POSITIONS))
        kept = -(-positions // most_lanes)
        if kept > min(_MOST_VECTORS_AT_ONCE, _KEPT_BYTES // vector_bytes):
            return None
        lanes = -(-positions // kept)
        return cls(vector_bytes, lanes, -(-lanes * vectors // 32) * 32)


@dataclass(frozen=True)
class Chunks:
    """How a row's positions are cut among blocks: by its shape only, so that every GPU adds in the same order.

    Attributes:
        count: how many chunks.
        positions: of each but the last, which may have fewer.
        threads: of a block; a thread has one vector of channels, at every few positions.
    """

    count: int
    positions: int
    threads: int

    @classmethod
    def of(cls, positions: int, vectors: int) -> Chunks:
        """Cut [positions, vectors of 16 bytes]."""
        lanes = max(1, _USUAL_THREADS // vectors)
        most = min(MAXIMUM_CHUNKS, max(1, positions // (lanes * _LEAST_POSITIONS)))
        chunk_positions = -(-positions // most)
        return cls(-(-positions // chunk_positions), chunk_positions, -(-lanes * vectors // 32) * 32)


class GroupNormLauncher(Launcher):
    """Group normalisation, arithmetic in float32."""

    def group_norm(
        self,
        stream: Stream | GraphBuilder,
        *,
        x: DeviceTensor,
        out: DeviceTensor,
        scale: DeviceTensor,
        bias: DeviceTensor,
        row_bias: DeviceTensor | None,
        statistics: DeviceTensor,
        groups: int,
        epsilon: float,
        silu: bool,
    ) -> None:
        """Normalise every group of channels of each row, over all its positions; scale, shift, and apply SiLU.

        Args:
            stream: where to launch; one kernel is, or two if groups are large.
            x: [rows, positions, channels], channels a multiple of 8, of at most 16 rows that may lie in chunks.
            out: alike; written. It may be ``x`` itself, else no alias.
            scale: [channels], of x's dtype.
            bias: [channels], alike.
            row_bias: [any rows, channels], added to x before anything else: row r takes row r modulo its own rows.
            statistics: float32, at least as long as ``group_norm_workspace`` says; its content is lost.
            groups: of the channels, which they divide.
            epsilon: added to the variance.
            silu: whether SiLU follows.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if no kernel exists for it.
        """
        dtype = check_element_type("x", x)
        rows, positions, channels = check_frames("x", x)
        vectors = channels * x.item_bytes // 16
        if channels % 8 or vectors > _MAXIMUM_THREADS:
            most = 16 // x.item_bytes * _MAXIMUM_THREADS
            raise KernelError(f"x has {channels} channels", f"A multiple of 8 up to {most} has a kernel")
        if not 1 <= groups <= MAXIMUM_GROUPS or channels % groups:
            raise KernelError(
                f"{channels} channels in {groups} groups have no kernel", f"1 to {MAXIMUM_GROUPS} groups divide them"
            )
        for name, tensor in {"x": x, "out": out}.items():
            self.check(name, tensor, (rows, positions, channels), dtype)
        self.check_dense("scale", scale, (channels,), dtype)
        self.check_dense("bias", bias, (channels,), dtype)
        if row_bias is None:
            row_bias = DeviceTensor(0, (1, channels), dtype, x.device_id)  # at no address: kernels add nothing
        row_bias_rows = check_rows("row_bias", row_bias)
        self.check("row_bias", row_bias, (row_bias_rows, channels), dtype)
        self._check_workspace(statistics, rows, groups)
        everything = (*row_arguments(x=x, row_bias=row_bias, out=out), np.int32(row_bias_rows))
        numbers = np.float32(epsilon), np.int32(silu)
        at_once = AtOnce.of(positions, channels // groups * x.item_bytes)
        if at_once is not None:
            self.launch(
                stream,
                f"group_norm_once_{dtype}_{at_once.vector_bytes}",
                (groups, rows, 1),
                (at_once.threads, 1, 1),
                *everything,
                scale.address,
                bias.address,
                *(np.int32(one) for one in (positions, channels, groups, at_once.lanes)),
                *numbers,
            )
            return
        chunks = Chunks.of(positions, vectors)
        grid, block = (chunks.count, rows, 1), (chunks.threads, 1, 1)
        sizes = (np.int32(positions), np.int32(channels), np.int32(groups), np.int32(chunks.positions))
        self.launch(
            stream,
            f"group_statistics_{dtype}",
            grid,
            block,
            *row_arguments(x=x, row_bias=row_bias),
            np.int32(row_bias_rows),
            statistics.address,
            *sizes,
        )
        self.launch(
            stream,
            f"group_normalise_{dtype}",
            grid,
            block,
            *everything,
            statistics.address,
            scale.address,
            bias.address,
            *sizes,
            *numbers,
        )

    def _check_workspace(self, statistics: DeviceTensor, rows: int, groups: int) -> None:
        (needed,) = group_norm_workspace(rows, groups)
        if len(statistics.shape) != 1 or statistics.shape[0] < needed:
            raise DeviceTensorError(
                f"statistics is {list(statistics.shape)}", f"Pass float32 of one axis of at least {needed}"
            )
        self.check_dense("statistics", statistics, statistics.shape, "float32")
