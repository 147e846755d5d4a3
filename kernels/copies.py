"""Launches copies: on the device, and between it and the host's page-locked memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launcher import THREADS, Launcher
from live2diff_trt.kernels.library import KernelError

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

_VECTOR_BYTES = 16
_MOST_BLOCKS = 1024
_MOST_BLOCKS_OVER_THE_BUS = 32
"""128 KB on their way at a time are more than a bus needs to be full; more blocks would only wait, and in the place of
the kernels of another lane."""


class CopyLauncher(Launcher):
    """Copies by a kernel: for what is captured into a graph, and for what a tick brings in and takes out.

    ``fetch`` and ``deliver`` are launched by the host in every tick. So they take addresses, which may be the device's
    or those of the host's page-locked memory, and leave to whoever holds the memory that it is large enough.
    """

    def copy(self, stream: Stream | GraphBuilder, *, source: DeviceTensor, target: DeviceTensor) -> None:
        """Copy a dense tensor to another.

        Args:
            stream: where to launch.
            source: dense, of whole multiples of 16 bytes, at an address that is one.
            target: alike; written. No alias of the source.

        Raises:
            DeviceTensorError: if they are not alike, or a tensor lies in chunks.
            KernelError: if bytes or addresses are no multiples of 16.
        """
        for name, tensor in {"source": source, "target": target}.items():
            self.check_dense(name, tensor, source.shape, source.dtype)
        size = math.prod(source.shape) * source.item_bytes
        _check_alignment(source.address, target.address, size)
        vectors = size // _VECTOR_BYTES
        grid = _cover(size, _MOST_BLOCKS)
        self.launch(stream, "copy_vectors", grid, (THREADS, 1, 1), source.address, target.address, np.int64(vectors))

    def fetch(
        self, stream: Stream | GraphBuilder, *, record: int, parameters: int, pixels: int, picture: int, size: int
    ) -> None:
        """Fetch a tick's parameters, and the picture that comes in with it, if there is one.

        Args:
            stream: where to launch.
            record: address of the record of TICK_PARAMETERS.
            parameters: address of its copy; written.
            pixels: address of the picture's bytes; not read where ``size`` is 0.
            picture: address of their copy; written.
            size: bytes of the picture, any number.

        Raises:
            KernelError: if an address is no multiple of 16.
        """
        _check_alignment(record, parameters, pixels, picture)
        grid = _cover(size, _MOST_BLOCKS_OVER_THE_BUS)
        self.launch(stream, "fetch", grid, (THREADS, 1, 1), record, parameters, pixels, picture, np.int64(size))

    def deliver(self, stream: Stream | GraphBuilder, *, picture: int, pixels: int, size: int) -> None:
        """Deliver a finished picture.

        Args:
            stream: where to launch.
            picture: address of its bytes.
            pixels: address of their copy; written.
            size: how many, any number.

        Raises:
            KernelError: if an address is no multiple of 16.
        """
        _check_alignment(picture, pixels)
        grid = _cover(size, _MOST_BLOCKS_OVER_THE_BUS)
        self.launch(stream, "deliver", grid, (THREADS, 1, 1), picture, pixels, np.int64(size))


def _check_alignment(*places: int) -> None:
    """Raise KernelError unless all addresses, or numbers of bytes, are multiples of a vector."""
    for place in places:
        if place % _VECTOR_BYTES:
            raise KernelError(f"{place:#x} is no multiple of a vector", f"Use multiples of {_VECTOR_BYTES} bytes")


def _cover(size: int, most_blocks: int) -> tuple[int, int, int]:
    """Return the grid in which threads take a vector each, or several in turn; one block where there is nothing."""
    return min(max(1, -(-size // (THREADS * _VECTOR_BYTES))), most_blocks), 1, 1
