"""Views of device memory: what kernels and plans are given. Owners allocate; everyone else holds these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from live2diff_trt.bundle.errors import Live2DiffError


class DeviceTensorError(Live2DiffError):
    """A tensor on the device is not what a kernel or a plan takes."""


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor in device memory, dense but for its first axis, which may lie in chunks.

    Plans have a fixed row count R, so rows lie in chunks of R: inside a chunk they are dense, and each chunk begins at
    an aligned address.

    Attributes:
        address: of the first element.
        shape: of all of it, rows included.
        dtype: numpy's name of it: ``float16``, ``float32``, ``int32``, ``uint8``, ``uint64``.
        device_id: the CUDA device that holds it.
        chunk_rows: rows of the first axis that lie densely; 0: all of them.
        chunk_bytes: from the start of a chunk to the next one's; 0 where there is one chunk.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    device_id: int = 0
    chunk_rows: int = 0
    chunk_bytes: int = 0

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, that is of one entry of the first axis."""
        return math.prod(self.shape[1:]) * self.item_bytes

    @property
    def rows_per_chunk(self) -> int:
        """Rows that lie densely."""
        return self.chunk_rows or self.shape[0]

    def row(self, index: int) -> DeviceTensor:
        """Return one row, without the first axis."""
        chunk, inside = divmod(index, self.rows_per_chunk)
        address = self.address + chunk * self.chunk_bytes + inside * self.row_bytes
        return DeviceTensor(address, self.shape[1:], self.dtype, self.device_id)

    def chunk(self, index: int) -> DeviceTensor:
        """Return the rows of one chunk, [rows per chunk, …]."""
        address = self.address + index * self.chunk_bytes
        return DeviceTensor(address, (self.rows_per_chunk, *self.shape[1:]), self.dtype, self.device_id)

    def reshape(self, *shape: int) -> DeviceTensor:
        """Return the same elements in another shape; chunked tensors keep their first axis.

        Raises:
            DeviceTensorError: if the shape holds another number of elements.
        """
        if math.prod(shape) != math.prod(self.shape) or (self.chunk_rows and shape[0] != self.shape[0]):
            raise DeviceTensorError(f"{list(self.shape)} can't be seen as {list(shape)}", "Keep the number of elements")
        return replace(self, shape=shape)


def check_tensor(name: str, tensor: DeviceTensor, shape: Sequence[int], dtype: str, device_id: int) -> None:
    """Raise DeviceTensorError, naming the tensor, unless it has this shape, this dtype, and is on this device."""
    found = (tensor.shape, tensor.dtype, tensor.device_id)
    if found != (tuple(shape), dtype, device_id):
        raise DeviceTensorError(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on device {tensor.device_id}",
            f"Pass {dtype} {list(shape)} on device {device_id}",
        )
    if tensor.address % math.gcd(16, tensor.item_bytes * math.prod(shape[-1:])):
        raise DeviceTensorError(f"{name} begins at an unaligned address", "Allocate it with 256-byte alignment")
