"""Launches the gated activation of a transformer's feed-forward network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launcher import Launcher, check_element_type, check_frames, row_arguments
from live2diff_trt.kernels.library import KernelError

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

_THREADS = 256  # GATED_GELU_THREADS of gated_gelu.cu
_VECTORS_PER_THREAD = 2


class GatedGeluLauncher(Launcher):
    """GEGLU, arithmetic in float32."""

    def gated_gelu(self, stream: Stream | GraphBuilder, *, x: DeviceTensor, out: DeviceTensor) -> None:
        """Multiply the first half of the channels by GELU (the exact one, by erf) of the second.

        Args:
            stream: where to launch.
            x: [rows, positions, 2 * width], width a multiple of 8, of at most 16 rows that may lie in chunks.
            out: [rows, positions, width]; written. No alias of x.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if no kernel exists for it.
        """
        dtype = check_element_type("x", x)
        rows, positions, channels = check_frames("x", x)
        width = channels // 2
        if channels % 16 or positions * channels >= 2**31:
            raise KernelError(
                f"x is {list(x.shape)}", "Its halves take a multiple of 8 channels, a row fewer than 2³¹ elements"
            )
        self.check("x", x, x.shape, dtype)
        self.check("out", out, (rows, positions, width), dtype)
        vectors = positions * width * x.item_bytes // 16
        self.launch(
            stream,
            f"gated_gelu_{dtype}",
            (-(-vectors // (_THREADS * _VECTORS_PER_THREAD)), rows, 1),
            (_THREADS, 1, 1),
            *row_arguments(x=x, out=out),
            np.int32(positions),
            np.int32(width),
        )
