"""What the launchers of all kernels share: the door at which tensors are checked, and the launch."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError, check_tensor
from live2diff_trt.kernels.library import ELEMENT_TYPES, HEAD_CHANNELS, KernelError, KernelLibrary
from live2diff_trt.kernels.tick_parameters import MAXIMUM_ROWS, MAXIMUM_STEPS, TICK_PARAMETERS

if TYPE_CHECKING:
    from cuda.core import LaunchConfig, Stream
    from cuda.core.graph import GraphBuilder

TILE = (32, 8)
"""Threads of a block that covers a picture: across and down."""
THREADS = 256


class Launcher:
    """Launches kernels of a library. Nothing is allocated, and nobody waits.

    Args:
        library: of the device whose tensors are passed.
    """

    def __init__(self, library: KernelLibrary) -> None:
        self._library = library

    def check(self, name: str, tensor: DeviceTensor, shape: tuple[int, ...], dtype: str) -> None:
        """Raise DeviceTensorError unless the tensor has this shape and dtype, and is on the library's device."""
        check_tensor(name, tensor, shape, dtype, self._library.device_id)

    def check_dense(self, name: str, tensor: DeviceTensor, shape: tuple[int, ...], dtype: str) -> None:
        """Check a tensor whose rows must not lie in several chunks."""
        self.check(name, tensor, shape, dtype)
        if shape and shape[0] > tensor.rows_per_chunk:
            raise DeviceTensorError(f"{name} lies in chunks", "Pass a dense tensor")

    def check_parameters(self, parameters: DeviceTensor) -> None:
        """Check the tick's parameters: uint8, one record of TICK_PARAMETERS."""
        self.check_dense("parameters", parameters, (TICK_PARAMETERS.itemsize,), "uint8")

    def check_step_table(self, step_table: DeviceTensor) -> None:
        """Check the steps' constants, float32 [4, MAXIMUM_STEPS]: sqrt(ā), sqrt(1 − ā), c_skip, c_out."""
        self.check_dense("step_table", step_table, (4, MAXIMUM_STEPS), "float32")

    def launch(
        self,
        stream: Stream | GraphBuilder,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *arguments: object,
    ) -> None:
        """Launch a kernel by its entry point. Addresses are Python ints; other arguments numpy scalars of C's type."""
        from cuda.core import launch

        launch(stream, _configure(grid, block), self._library.kernel(kernel), *arguments)


@lru_cache(maxsize=1024)
def _configure(grid: tuple[int, int, int], block: tuple[int, int, int]) -> LaunchConfig:
    """Return what the driver is told of a launch. Kept, as some launches are made anew in every tick."""
    from cuda.core import LaunchConfig

    return LaunchConfig(grid=grid, block=block)


def check_element_type(name: str, tensor: DeviceTensor) -> str:
    """Return a tensor's dtype; raise KernelError if no kernel takes it."""
    if tensor.dtype not in ELEMENT_TYPES:
        raise KernelError(f"{name} is {tensor.dtype}", f"Kernels exist for {' and '.join(ELEMENT_TYPES)}")
    return tensor.dtype


def check_rows(name: str, tensor: DeviceTensor) -> int:
    """Return how many rows a tensor has; raise KernelError if it is more than a launch takes."""
    if not 1 <= tensor.shape[0] <= MAXIMUM_ROWS:
        raise KernelError(f"{name} has {tensor.shape[0]} rows", f"A launch takes 1 to {MAXIMUM_ROWS}")
    return tensor.shape[0]


def check_frames(name: str, tensor: DeviceTensor) -> tuple[int, int, int]:
    """Return rows, positions and channels of a tensor; raise DeviceTensorError or KernelError if it has others."""
    if len(tensor.shape) != 3 or 0 in tensor.shape:
        raise DeviceTensorError(f"{name} is {list(tensor.shape)}", "Pass [rows, positions, channels]")
    return check_rows(name, tensor), tensor.shape[1], tensor.shape[2]


def check_head_channels(channels: int, heads: int) -> int:
    """Return how many channels a head has; raise KernelError if no kernel exists for them."""
    if heads < 1 or channels % heads or channels // heads not in HEAD_CHANNELS:
        sizes = ", ".join(map(str, HEAD_CHANNELS))
        raise KernelError(f"{channels} channels in {heads} heads have no kernel", f"A head has {sizes} channels")
    return channels // heads


def check_row(row: int, rows: int = MAXIMUM_ROWS) -> None:
    """Raise KernelError unless ``row`` is one of ``rows``."""
    if not 0 <= row < rows:
        raise KernelError(f"there is no row {row}", f"Rows count from 0 to {rows - 1}")


def check_step(step: int) -> None:
    """Raise KernelError unless ``step`` is one of the step table's."""
    if not 0 <= step < MAXIMUM_STEPS:
        raise KernelError(f"there is no step {step}", f"Steps count from 0 to {MAXIMUM_STEPS - 1}")


def row_arguments(**tensors: DeviceTensor) -> tuple[Any, ...]:
    """Return what kernels take for tensors that may lie in chunks: address and stride of each, then rows in a chunk.

    Raises:
        DeviceTensorError: if tensors lie in chunks of different sizes, or a stride is no whole number of elements.
    """
    sizes = {tensor.chunk_rows for tensor in tensors.values() if tensor.shape[0] > tensor.rows_per_chunk}
    if len(sizes) > 1:
        raise DeviceTensorError(
            f"{', '.join(tensors)} lie in chunks of {' and '.join(map(str, sorted(sizes)))} rows", "Use one size"
        )
    chunk_rows = sizes.pop() if sizes else max(tensor.shape[0] for tensor in tensors.values())
    arguments: list[Any] = []
    for name, tensor in tensors.items():
        arguments += [tensor.address, np.int64(_chunk_stride(name, tensor, chunk_rows))]
    return (*arguments, np.int32(chunk_rows))


def _chunk_stride(name: str, tensor: DeviceTensor, chunk_rows: int) -> int:
    """Return elements from a chunk of ``chunk_rows`` rows to the next one."""
    if tensor.shape[0] <= tensor.rows_per_chunk:
        return chunk_rows * math.prod(tensor.shape[1:])
    stride, rest = divmod(tensor.chunk_bytes, tensor.item_bytes)
    # Vectors of 16 bytes are read from every chunk.
    if rest or tensor.chunk_bytes % 16 or tensor.chunk_bytes < chunk_rows * tensor.row_bytes:
        raise DeviceTensorError(
            f"chunks of {name} lie {tensor.chunk_bytes} bytes apart", "Use a multiple of 256 bytes that holds a chunk"
        )
    return stride


def tiles(width: int, height: int, planes: int = 1) -> tuple[int, int, int]:
    """Return the grid of blocks of TILE threads that covers pictures."""
    return -(-width // TILE[0]), -(-height // TILE[1]), planes
