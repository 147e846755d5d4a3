"""Launches what the whole form needs beside its plan: the window's inputs, and new slots written into the ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.launcher import THREADS, Launcher, check_element_type, check_row, check_rows, row_arguments
from live2diff_trt.kernels.tick_parameters import SINK, WINDOW

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

SLOT_COPY = np.dtype(
    [
        ("source", np.uint64),
        ("ring_rows", np.uint64),
        ("row_bytes", np.int64),
        ("chunk_bytes", np.int64),
        ("chunk_rows", np.int32),
        ("vector_bytes", np.int32),
    ],
    align=True,
)
"""One record says where the new keys or values of one attention come from and go to; SlotCopy of window.cu."""
_BLOCKS_PER_COPY = 32


@dataclass(frozen=True)
class NewSlots:
    """New keys or values of one attention and the ring they belong to.

    Attributes:
        source: [rows, positions, channels]; may lie in chunks.
        ring_rows: uint64 [at least rows]: addresses of each row's [window, positions, channels].
    """

    source: DeviceTensor
    ring_rows: DeviceTensor


def slot_copies(new: Sequence[NewSlots]) -> NDArray[np.void]:
    """Return the records of SLOT_COPY for ``scatter_slots`` and ``scatter_sink``, to be uploaded once.

    Raises:
        DeviceTensorError: if a row is no multiple of 8 bytes.
    """
    copies = np.zeros(len(new), SLOT_COPY)
    for copy, slots in zip(copies, new, strict=True):
        source = slots.source
        steps = source.address | source.row_bytes | source.chunk_bytes
        if steps % 8:
            raise DeviceTensorError(f"a slot has {source.row_bytes} bytes", "Use slots of whole multiples of 8 bytes")
        copy["source"], copy["ring_rows"] = source.address, slots.ring_rows.address
        copy["row_bytes"], copy["chunk_bytes"] = source.row_bytes, source.chunk_bytes
        copy["chunk_rows"] = source.rows_per_chunk
        copy["vector_bytes"] = 8 if steps % 16 else 16
    return copies


class WindowLauncher(Launcher):
    """The window as tensors, and new slots on their way into it."""

    def window_inputs(
        self,
        stream: Stream | GraphBuilder,
        *,
        position: DeviceTensor,
        past_position: DeviceTensor,
        past_bias: DeviceTensor,
        parameters: DeviceTensor,
    ) -> None:
        """Write the plan's inputs that say which slot holds which frame.

        Args:
            stream: where to launch.
            position: int32 [rows], written; may lie in chunks, and the others too.
            past_position: int32 [rows, window]; written.
            past_bias: [rows, window], 0 where visible and −inf where hidden; written.
            parameters: the tick's, uint8.
        """
        dtype = check_element_type("past_bias", past_bias)
        rows = check_rows("position", position)
        self.check("position", position, (rows,), "int32")
        self.check("past_position", past_position, (rows, WINDOW), "int32")
        self.check("past_bias", past_bias, (rows, WINDOW), dtype)
        self.check_parameters(parameters)
        self.launch(
            stream,
            f"window_inputs_{dtype}",
            (1, 1, 1),
            (rows * WINDOW, 1, 1),
            *row_arguments(position=position, past_position=past_position, past_bias=past_bias),
            parameters.address,
        )

    def scatter_slots(
        self, stream: Stream | GraphBuilder, *, copies: DeviceTensor, rows: int, parameters: DeviceTensor
    ) -> None:
        """Copy every active row's new keys and values into its slot. Changes the ring in place.

        Args:
            stream: where to launch.
            copies: uint8 [records, bytes of SLOT_COPY], what ``slot_copies`` made; its tensors must still be there.
            rows: how many rows each of them has.
            parameters: the tick's, uint8.
        """
        check_row(rows - 1)
        self._check_copies(copies)
        self.check_parameters(parameters)
        grid = (_BLOCKS_PER_COPY, rows, copies.shape[0])
        self.launch(stream, "scatter_slots", grid, (THREADS, 1, 1), copies.address, parameters.address)

    def scatter_sink(self, stream: Stream | GraphBuilder, *, copies: DeviceTensor, row: int) -> None:
        """Copy the 8 warm-up frames' keys and values into slots 0 to 7 of one row. Changes the ring in place.

        Args:
            stream: where to launch.
            copies: as for ``scatter_slots``, of tensors of 8 rows.
            row: of the ring.
        """
        check_row(row)
        self._check_copies(copies)
        grid = (_BLOCKS_PER_COPY, SINK, copies.shape[0])
        self.launch(stream, "scatter_sink", grid, (THREADS, 1, 1), copies.address, np.int32(row))

    def _check_copies(self, copies: DeviceTensor) -> None:
        self.check_dense("copies", copies, (copies.shape[0], SLOT_COPY.itemsize), "uint8")
