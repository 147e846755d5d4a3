"""Device memory for tests: arrays up and down, outputs poisoned, rows in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.core import Buffer, Device
from numpy.typing import NDArray

from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels

POISON = 0xFF
"""Every byte that nobody wrote: not a number in float16 and float32."""
Array = NDArray[Any]


class Gpu:
    """A device with its kernels, and everything that a test allocates on it."""

    def __init__(self) -> None:
        self.device = Device(0)
        self.device.set_current()
        self.stream = self.device.create_stream()
        self.kernels = Kernels.load(self.device)
        self._buffers: dict[int, Buffer] = {}

    def poisoned(self, shape: tuple[int, ...], dtype: str, chunk_rows: int = 0) -> DeviceTensor:
        """Allocate a tensor of which every byte is poison. Chunks lie further apart than they must."""
        dense = DeviceTensor(0, shape, dtype)
        chunk_bytes = -(-chunk_rows * dense.row_bytes // 256) * 256 + 256 if chunk_rows else 0
        chunks = -(-shape[0] // chunk_rows) if chunk_rows else 1
        size = chunks * chunk_bytes if chunk_rows else shape[0] * dense.row_bytes
        buffer = self.device.allocate(size + 256, stream=self.stream)
        buffer.fill(POISON, stream=self.stream)
        address = int(buffer.handle)
        self._buffers[address] = buffer
        return DeviceTensor(address, shape, dtype, self.device.device_id, chunk_rows, chunk_bytes)

    def upload(self, values: Array, chunk_rows: int = 0) -> DeviceTensor:
        """Copy an array into a tensor of its own."""
        values = np.ascontiguousarray(values)
        tensor = self.poisoned(values.shape, values.dtype.name, chunk_rows)
        for row in range(values.shape[0]):
            line = np.ascontiguousarray(values[row])
            checked(
                driver.cuMemcpyHtoDAsync(tensor.row(row).address, line.ctypes.data, line.nbytes, self.stream.handle)
            )
        self.stream.sync()
        return tensor

    def upload_bytes(self, record: Array) -> DeviceTensor:
        """Copy a structure, as uint8 [bytes]."""
        return self.upload(np.frombuffer(record.tobytes(), np.uint8))

    def download(self, tensor: DeviceTensor) -> Array:
        """Wait for everything, then copy a tensor to the host."""
        values = np.empty(tensor.shape, tensor.dtype)
        for row in range(tensor.shape[0]):
            line = np.empty(tensor.shape[1:], tensor.dtype)
            self._copy_down(line, tensor.row(row).address)
            values[row] = line
        return values

    def outside_is_untouched(self, tensor: DeviceTensor) -> bool:
        """Whether all that was allocated with a tensor, and does not belong to its rows, is still poison."""
        buffer = self._buffers[tensor.address]
        everything = np.empty(buffer.size, np.uint8)
        self._copy_down(everything, tensor.address)
        for row in range(tensor.shape[0]):
            start = tensor.row(row).address - tensor.address
            everything[start : start + tensor.row_bytes] = POISON
        return bool((everything == POISON).all())

    def _copy_down(self, values: Array, address: int) -> None:
        checked(driver.cuMemcpyDtoHAsync(values.ctypes.data, address, values.nbytes, self.stream.handle))
        self.stream.sync()

    def close(self) -> None:
        """Free everything."""
        self.stream.sync()
        for buffer in self._buffers.values():
            buffer.close()
        self._buffers.clear()


@contextmanager
def open_gpu() -> Iterator[Gpu]:
    """Open the first device; free what was allocated on it."""
    gpu = Gpu()
    try:
        yield gpu
    finally:
        gpu.close()


def checked(answer: tuple[Any, ...]) -> None:
    """Raise where the driver reports an error."""
    assert answer[0] == driver.CUresult.CUDA_SUCCESS, answer[0]
