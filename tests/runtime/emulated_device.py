"""A GPU in host memory, as far as the runtime knows one: blocks, streams, events, graphs, and the driver's copies.

It is as lazy as a GPU may be, and as strict: enqueued work is done when somebody waits for it and never before; memory
is 0xFF, which is no number, until it was written and after it was freed; what touches memory that is not there fails.
"""

from __future__ import annotations

import ctypes
import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ALIGNMENT = 256
SCRATCH_ALIGNMENT = 512


class EmulationError(Exception):
    """What a GPU would answer with an illegal address, or worse."""


class AddressSpace:
    """Memory of one kind, by address. Freed memory stays mapped while the space lives."""

    def __init__(self, *, poisoned: bool) -> None:
        self._poisoned = poisoned
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._blocks: dict[int, Array] = {}

    @property
    def allocated(self) -> int:
        """Bytes that are allocated now."""
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
        self._blocks[address] = block[start : start + size]
        self._sizes[address] = size
        insort(self._starts, address)
        return address

    def free(self, address: int) -> None:
        """Overwrite a block; nobody may touch it any more."""
        del self._sizes[address]
        self._starts.remove(address)
        self._blocks[address][:] = 0xFF

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether a range lies inside one block that is allocated."""
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address + size <= self._starts[index] + self._sizes[self._starts[index]]

    def view(self, address: int, shape: Sequence[int], dtype: str) -> Array:
        """Return an array over allocated memory; raise EmulationError where it is not."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if not self.holds(address, size):
            raise EmulationError(f"illegal address {address:#x}, {size} bytes")
        block = self._starts[bisect_right(self._starts, address) - 1]
        return self._blocks[block][address - block : address - block + size].view(dtype).reshape(shape)


class EmulatedGpu:
    """One device with its memory, and the books that tests look into.

    Attributes:
        memory, pinned: the device's memory, and the host's that it can reach.
        waits: how often the host waited for work that was not done.
        syncs: how often it asked, done or not.
        works: names of what was submitted outside of captures, in order.
    """

    device_id = 0
    compute_capability = (8, 9)

    def __init__(self) -> None:
        self.memory = AddressSpace(poisoned=True)
        self.pinned = AddressSpace(poisoned=False)  # most of it is never touched
        self.streams: dict[int, EmulatedStream] = {}
        self.total = 4 << 30
        self.waits = 0
        self.syncs = 0
        self.works: list[str] = []

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

    def set_current(self) -> None:
        """Make it the thread's device."""

    def create_stream(self) -> EmulatedStream:
        """Return a stream."""
        return EmulatedStream(self)

    def create_graph_builder(self) -> EmulatedGraphBuilder:
        """Return a builder with a stream that only records."""
        return EmulatedGraphBuilder(self)

    def allocate(self, size: int, *, stream: EmulatedStream) -> EmulatedBuffer:
        """Allocate device memory."""
        return EmulatedBuffer(self.memory, size)

    def finish(self) -> None:
        """Do all that was enqueued anywhere."""
        for stream in list(self.streams.values()):
            stream.run_until(stream.submitted)


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


class EmulatedStream:
    """Work in order. While it captures, work is recorded in ``recorded`` and not done."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self.gpu = gpu
        self.handle = len(gpu.streams) + 1
        gpu.streams[self.handle] = self
        self.recorded: list[Callable[[], None]] | None = None
        self.submitted = 0
        self._done = 0
        self._queue: deque[Callable[[], None]] = deque()

    def submit(self, name: str, work: Callable[[], None]) -> None:
        """Enqueue work, with whatever addresses it holds now."""
        if self.recorded is not None:
            self.recorded.append(work)
            return
        self.gpu.works.append(name)
        self.submitted += 1
        self._queue.append(work)

    def is_done(self, ticket: int) -> bool:
        """Whether the first ``ticket`` pieces of work are done."""
        return self._done >= ticket

    def run_until(self, ticket: int) -> None:
        """Do the first ``ticket`` pieces of work, as far as they are not done."""
        while self._done < ticket:
            self._done += 1
            self._queue.popleft()()

    def sync(self) -> None:
        """Wait for all work."""
        if self.recorded is not None:
            raise EmulationError("a stream that captures can't be waited for")
        EmulatedEvent(self, self.submitted).sync()

    def record(self) -> EmulatedEvent:
        """Return an event behind all work so far."""
        if self.recorded is not None:
            raise EmulationError("an event inside a capture can't be waited for")
        return EmulatedEvent(self, self.submitted)


class EmulatedEvent:
    """A place in a stream's order."""

    def __init__(self, stream: EmulatedStream, ticket: int) -> None:
        self._stream = stream
        self._ticket = ticket

    def sync(self) -> None:
        """Wait until the stream came here."""
        gpu = self._stream.gpu
        gpu.syncs += 1
        gpu.waits += not self._stream.is_done(self._ticket)
        self._stream.run_until(self._ticket)


class EmulatedGraphBuilder:
    """Records what is enqueued on its stream."""

    def __init__(self, gpu: EmulatedGpu) -> None:
        self.stream = EmulatedStream(gpu)

    def begin_building(self) -> EmulatedGraphBuilder:
        """Record from here on."""
        self.stream.recorded = []
        return self

    def end_building(self) -> EmulatedGraphBuilder:
        """Record no more."""
        return self

    def complete(self) -> EmulatedGraph:
        """Return what was recorded."""
        if not self.stream.recorded:
            raise EmulationError("nothing was captured")
        return EmulatedGraph(tuple(self.stream.recorded))

    def close(self) -> None:
        """Let go of the stream."""
        del self.stream.gpu.streams[self.stream.handle]


class EmulatedGraph:
    """Recorded work: every launch does the same to the same addresses."""

    def __init__(self, works: tuple[Callable[[], None], ...]) -> None:
        self.works = works

    def upload(self, stream: EmulatedStream) -> None:
        """Prepare a launch."""

    def launch(self, stream: EmulatedStream) -> None:
        """Enqueue all of it."""
        works = self.works
        if not works:
            raise EmulationError("the graph was closed")

        def run() -> None:
            for work in works:
                work()

        stream.submit("graph", run)

    def close(self) -> None:
        """Forget it; closing twice is harmless."""
        self.works = ()


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
