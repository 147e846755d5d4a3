"""Launches copies on the device."""

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


class CopyLauncher(Launcher):
    """Copies by a kernel: for what is captured into a graph."""

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
        if (source.address | target.address | size) % _VECTOR_BYTES:
            raise KernelError(f"{size} bytes at these addresses can't be copied", "Use multiples of 16 bytes")
        vectors = size // _VECTOR_BYTES
        grid = (min(-(-vectors // THREADS), _MOST_BLOCKS), 1, 1)
        self.launch(stream, "copy_vectors", grid, (THREADS, 1, 1), source.address, target.address, np.int64(vectors))
