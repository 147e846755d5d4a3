"""A GPU in host memory, as far as the runtime knows one: blocks of memory, and the driver's copies.

It is strict: memory is 0xFF, which is no number, until it was written and after it was freed; what touches memory that
is not there fails. When work is done is for ``emulated_streams.py`` to say.
"""

from __future__ import annotations

import ctypes
import math
import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.emulated_streams import EmulatedQueues, EmulatedStream, EmulationError

Array = NDArray[Any]
ALIGNMENT = 256
SCRATCH_ALIGNMENT = 512


class AddressSpace:
    """Memory of one kind, by address. Freed memory stays mapped while the space lives."""

    def __init__(self, *, poisoned: bool) -> None:
        self._poisoned = poisoned
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._blocks: dict[int, Array] = {}
        self._changing = threading.RLock()

    @property
    def allocated(self) -> int:
        """Bytes that are allocated now."""
        with self._changing:
            return sum(self._sizes.values())

    def allocate(self, size: int) -> int:
        """Return the address of memory in which nothing was written."""
        if size < 1:
            raise EmulationError(f"an allocation of {size} bytes has no address")
        block = np.empty(size + SCRATCH_ALIGNMENT, np.uint8)
        if self._poisoned:
            block[:] = 0xFF
        address = -(-block.ctypes.data // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT
        start = address - block.ctypes.data
        with self._changing:
            self._blocks[address] = block[start : start + size]
            self._sizes[address] = size
            insort(self._starts, address)
        return address

    def free(self, address: int) -> None:
        """Overwrite a block; nobody may touch it any more."""
        with self._changing:
            del self._sizes[address]
            self._starts.remove(address)
            self._blocks[address][:] = 0xFF

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether a range lies inside one block that is allocated."""
        with self._changing:
            index = bisect_right(self._starts, address) - 1
            return index >= 0 and address + size <= self._starts[index] + self._sizes[self._starts[index]]

    def view(self, address: int, shape: Sequence[int], dtype: str) -> Array:
        """Return an array over allocated memory; raise EmulationError where it is not."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._changing:
            if not self.holds(address, size):
                raise EmulationError(f"illegal address {address:#x}, {size} bytes")
            block = self._starts[bisect_right(self._starts, address) - 1]
        return self._blocks[block][address - block : address - block + size].view(dtype).reshape(shape)


class EmulatedGpu(EmulatedQueues):
    """One device with its memory, and the books that tests look into.

    Attributes:
        memory, pinned: the device's memory, and the host's that it can reach.
    """

    device_id = 0
    compute_capability = (8, 9)

    def __init__(self) -> None:
        super().__init__()
        self.memory = AddressSpace(poisoned=True)
        self.pinned = AddressSpace(poisoned=False)  # most of it is never touched
        self.total = 4 << 30
        self._threads = threading.local()

    @property
    def free_bytes(self) -> int:
        """What is not allocated."""
        return self.total - self.memory.allocated

    @property
    def memory_resource(self) -> EmulatedGpu:
        """The pool that allocations come from."""
        return self

    @property
    def handle(self) -> int:
        """The pool's."""
        return id(self)

    @property
    def is_current(self) -> bool:
        """Whether it is this thread's device."""
        return getattr(self._threads, "is_current", False)

    def set_current(self) -> None:
        """Make it the thread's device."""
        self._threads.is_current = True

    def allocate(self, size: int, *, stream: EmulatedStream) -> EmulatedBuffer:
        """Allocate device memory."""
        return EmulatedBuffer(self.memory, size)


class EmulatedBuffer:
    """A block of memory, freed in a stream's order or, without one, at once."""

    def __init__(self, space: AddressSpace, size: int) -> None:
        self._space = space
        self.size = size
        self.handle = space.allocate(size)
        self._closed = False

    def fill(self, value: int, *, stream: EmulatedStream) -> None:
        """Set every byte, in the stream's order."""
        stream.submit("fill", lambda: self._space.view(self.handle, [self.size], "uint8").fill(value))

    def close(self, stream: EmulatedStream | None = None) -> None:
        """Free it; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if stream is None:
            self._space.free(self.handle)
        else:
            stream.submit("free", lambda: self._space.free(self.handle))


class _Result(Enum):
    CUDA_SUCCESS = 0


class EmulatedDriver:
    """The calls of the CUDA driver that the runtime makes. Pageable memory is read at once, pinned memory late."""

    CUresult = _Result

    def __init__(self, gpu: EmulatedGpu) -> None:
        self._gpu = gpu

    def cuMemGetInfo(self) -> tuple[_Result, int, int]:  # noqa: N802 # the driver's own names
        """Return free and total bytes."""
        return _Result.CUDA_SUCCESS, self._gpu.free_bytes, self._gpu.total

    def cuMemPoolTrimTo(self, pool: int, size: int) -> tuple[_Result]:  # noqa: N802
        """Keep nothing for later: freed memory is gone already."""
        return (_Result.CUDA_SUCCESS,)

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> tuple[_Result]:  # noqa: N802
        """Copy up."""
        pinned = self._gpu.pinned
        early = None if pinned.holds(source) else np.frombuffer(ctypes.string_at(source, size), np.uint8)

        def copy() -> None:
            values = pinned.view(source, [size], "uint8") if early is None else early
            self._gpu.memory.view(target, [size], "uint8")[:] = values

        return self._submit(stream, "copy up", copy)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> tuple[_Result]:  # noqa: N802
        """Copy down; a copy into pageable memory is waited for."""
        pinned = self._gpu.pinned

        def copy() -> None:
            values = self._gpu.memory.view(source, [size], "uint8")
            if pinned.holds(target):
                pinned.view(target, [size], "uint8")[:] = values
            else:
                ctypes.memmove(target, values.ctypes.data, size)

        answer = self._submit(stream, "copy down", copy)
        if not pinned.holds(target):
            self._gpu.streams[stream].sync()
        return answer

    def cuMemcpyDtoDAsync(self, target: int, source: int, size: int, stream: int) -> tuple[_Result]:  # noqa: N802
        """Copy on the device; the ranges must not overlap."""
        if abs(target - source) < size:
            raise EmulationError(f"a copy of {size} bytes from {source:#x} to {target:#x} overlaps itself")

        def copy() -> None:
            memory = self._gpu.memory
            memory.view(target, [size], "uint8")[:] = memory.view(source, [size], "uint8")

        return self._submit(stream, "copy", copy)

    def cuMemsetD8Async(self, address: int, value: int, size: int, stream: int) -> tuple[_Result]:  # noqa: N802
        """Set every byte."""
        return self._submit(stream, "fill", lambda: self._gpu.memory.view(address, [size], "uint8").fill(value))

    def _submit(self, stream: int, name: str, work: Callable[[], None]) -> tuple[_Result]:
        self._gpu.streams[stream].submit(name, work)
        return (_Result.CUDA_SUCCESS,)
