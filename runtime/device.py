"""The GPU of one session: its stream, and every allocation on it. Whoever needs memory gets a view; this owns it."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.core import Buffer, Device, LegacyPinnedMemoryResource, Stream, StreamOptions
from numpy.typing import NDArray

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.kernels.device_tensor import DeviceTensor

logger = logging.getLogger(__name__)

Array = NDArray[Any]
_GRAIN_BYTES = 512  # to a multiple of this TensorRT-RTX wants its scratch memory aligned


class DeviceMemory(ClosedAtEnd):
    """All device memory of one session, and the stream on which whatever has no other stream happens.

    Args:
        device_id: number of the CUDA device.
        priority: of the stream; lower goes first, 0 is the last.

    Attributes:
        device: the CUDA device, current in the thread that opened the session.
        stream: a non-blocking stream of the session's own.
        allocated: purpose → bytes, of everything that was allocated.
    """

    def __init__(self, device_id: int = 0, priority: int = 0) -> None:
        self.device = Device(device_id)
        self.device.set_current()
        self.stream: Stream = self.device.create_stream(options=StreamOptions(priority=priority))
        self.allocated: dict[str, int] = {}
        self._buffers: dict[int, tuple[Buffer, int]] = {}  # with the size that was asked for

    @property
    def device_id(self) -> int:
        """The device's number."""
        return self.device.device_id

    def allocate(self, purpose: str, size: int, stream: Stream | None = None) -> int:
        """Return the address of ``size`` zeroed bytes, 512-byte aligned; they live as long as the session.

        They are zeroed in the order of ``stream``, the session's own if not given.
        """
        order = stream or self.stream
        buffer = self.device.allocate(-(-size // _GRAIN_BYTES) * _GRAIN_BYTES, stream=order)
        buffer.fill(0, stream=order)
        address = int(buffer.handle)
        self._buffers[address] = buffer, size
        self.allocated[purpose] = self.allocated.get(purpose, 0) + size
        logger.debug("%s: %.1f MB on device %d", purpose, size / 1e6, self.device_id)
        return address

    def release(self, purpose: str, address: int, stream: Stream | None = None) -> None:
        """Free an allocation before the session ends, after what ``stream`` (the session's own) was given so far."""
        buffer, size = self._buffers.pop(address)
        self.allocated[purpose] -= size
        buffer.close(stream or self.stream)

    def upload(self, tensor: DeviceTensor, values: Array) -> None:
        """Copy a host array into a dense tensor of the same size, and wait for it: not for use inside a tick."""
        values = upload_on(self.stream, tensor, values)
        self.stream.sync()

    def download(self, tensor: DeviceTensor) -> Array:
        """Wait for all work and copy a tensor to the host, chunk by chunk: not for use inside a tick."""
        values = np.empty(tensor.shape, tensor.dtype)
        for row in range(tensor.shape[0] if tensor.chunk_rows else 0):
            self._download_into(values[row], tensor.row(row).address)
        if not tensor.chunk_rows:
            self._download_into(values, tensor.address)
        self.stream.sync()
        return values

    def _download_into(self, values: Array, address: int) -> None:
        checked(driver.cuMemcpyDtoHAsync(values.ctypes.data, address, values.nbytes, self.stream.handle))

    def close(self) -> None:
        """Wait for the stream and free everything; closing twice is harmless."""
        if self._buffers:
            self.device.set_current()
            self.stream.sync()
        for buffer, _ in self._buffers.values():
            buffer.close(self.stream)
        if self._buffers:
            self._buffers.clear()
            self.stream.sync()
            # The driver's pool keeps what was freed for the next allocation; other processes may want it.
            checked(driver.cuMemPoolTrimTo(self.device.memory_resource.handle, 0))


class PinnedArray:
    """A host array that the GPU reads and writes without a detour.

    Attributes:
        array: uint8 [bytes], valid until ``close``.
    """

    def __init__(self, size: int) -> None:
        self._buffer = LegacyPinnedMemoryResource().allocate(size)
        address = int(self._buffer.handle)
        self.address = address
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        self._buffer.close()


class PinnedTurns:
    """Pinned arrays used in turn: the host fills one while others are on their way.

    Args:
        device: of the events that tell when an array was read.
        count: how many may be on their way before ``send`` waits for the oldest.
        size: of each, in bytes.
    """

    def __init__(self, device: Device, count: int, size: int) -> None:
        self._arrays = deque((PinnedArray(size), device.create_event()) for _ in range(count))

    def send(self, stream: Stream, address: int, values: Array) -> None:
        """Copy values of no more than an array's size to the device, in the stream's order."""
        pinned, sent = self._arrays[0]
        sent.sync()
        pinned.array[: values.nbytes].view(values.dtype).reshape(values.shape)[:] = values
        checked(driver.cuMemcpyHtoDAsync(address, pinned.address, values.nbytes, stream.handle))
        stream.record(sent)
        self._arrays.rotate(-1)

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        for pinned, _ in self._arrays:
            pinned.close()


def copy_on_device(stream: Stream, target: DeviceTensor, source: DeviceTensor) -> None:
    """Copy a dense tensor to another of the same size, in the stream's order."""
    checked(driver.cuMemcpyDtoDAsync(target.address, source.address, dense_bytes(source), stream.handle))


def upload_on(stream: Stream, tensor: DeviceTensor, values: Array) -> Array:
    """Copy a host array into a dense tensor of the same size, in the stream's order.

    Returns:
        What is read, maybe late: it must be kept until the stream came by.
    """
    values = np.ascontiguousarray(values, tensor.dtype)
    checked(driver.cuMemcpyHtoDAsync(tensor.address, values.ctypes.data, values.nbytes, stream.handle))
    return values


def fill_with_zeros(stream: Stream, address: int, size: int) -> None:
    """Zero device memory, in the stream's order."""
    checked(driver.cuMemsetD8Async(address, 0, size, stream.handle))


def dense_bytes(tensor: DeviceTensor) -> int:
    """Bytes of a tensor whose rows lie densely."""
    return tensor.shape[0] * tensor.row_bytes if tensor.shape else tensor.item_bytes


def checked(answer: tuple[Any, ...]) -> Any:
    """Return what a driver call gave; raise BackendError with the driver's own name of the error."""
    error, *values = answer
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(
            f"CUDA failed with {error.name}",
            "Free device memory if that is what it says; else look at `live2diff-trt doctor`",
        )
    return values[0] if len(values) == 1 else values
