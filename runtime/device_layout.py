"""Where each tensor lies inside an allocation: arithmetic only, so that memory is known before it is taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from live2diff_trt.engine.arena import ALIGNMENT_BYTES
from live2diff_trt.kernels.device_tensor import DeviceTensor


@dataclass(frozen=True)
class TensorLayout:
    """A tensor that needs a place.

    Attributes:
        shape: rows first.
        dtype: numpy's name of it.
        chunk_rows: rows that lie densely, each chunk beginning at an aligned address; 0: all of them. The number of
            rows is then rounded up to whole chunks.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int = 0

    @property
    def chunk_bytes(self) -> int:
        """From the start of a chunk to the next one's; of all of it, where there are no chunks."""
        rows = self.chunk_rows or self.shape[0]
        return align(rows * math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes it takes, padding included."""
        chunks = -(-self.shape[0] // self.chunk_rows) if self.chunk_rows else 1
        return chunks * self.chunk_bytes

    def at(self, address: int, device_id: int) -> DeviceTensor:
        """Return the tensor at an address."""
        if not self.chunk_rows:
            return DeviceTensor(address, self.shape, self.dtype, device_id)
        return DeviceTensor(address, self.shape, self.dtype, device_id, self.chunk_rows, self.chunk_bytes)


@dataclass(frozen=True)
class BlockLayout:
    """Tensors side by side in one allocation.

    Attributes:
        tensors: name → its layout.
    """

    tensors: Mapping[str, TensorLayout]

    @property
    def nbytes(self) -> int:
        """Bytes of the allocation."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def bytes_at(self, address: int, device_id: int) -> DeviceTensor:
        """Return an allocation at ``address`` as uint8 [bytes], so that all of it is copied at once."""
        return DeviceTensor(address, (self.nbytes,), "uint8", device_id)

    def at(self, address: int, device_id: int) -> dict[str, DeviceTensor]:
        """Return every tensor's view of an allocation at ``address``."""
        views: dict[str, DeviceTensor] = {}
        for name, tensor in self.tensors.items():
            views[name] = tensor.at(address, device_id)
            address += tensor.nbytes
        return views


def align(size: int) -> int:
    """Round up to the alignment."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
