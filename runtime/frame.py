"""A frame on its way in and on its way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.runtime.errors import FrameError

Image = NDArray[np.uint8]
NewFrame = Callable[[int, int], Image]
"""Height and width → a frame in which nothing was written, uint8 [height, width, 3], contiguous."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame as a source gives it.

    Attributes:
        image: uint8 RGB, [height, width, 3], upright, contiguous; never written to by the stream.
        time: presentation time in seconds, counted from the start of the source.
    """

    image: Image
    time: Fraction


@dataclass(frozen=True, eq=False)
class FinishedFrame:
    """A frame as the stream delivers it: each frame that went in comes out once, in order.

    Attributes:
        image: uint8 RGB, [height, width, 3] at the stream's size; the receiver owns it. A numpy array, or a
            ``DeviceImage`` where the stream was opened with ``output="device"``. A frame that repeats another has the
            very same object: who writes into one writes into both.
        time: the presentation time it came with, in seconds.
        index: which frame of the source it is, from 0.
        latency_ms: from the moment the stream took the frame to its delivery.
        repeated: whether it shows the frame before it once more: it was skipped as similar, or came in a pause.
    """

    image: Any
    time: Fraction
    index: int
    latency_ms: float
    repeated: bool = False


def empty_frame(height: int, width: int) -> Image:
    """Return a frame in ordinary memory in which nothing was written, uint8 [height, width, 3]."""
    return np.empty((height, width, 3), np.uint8)


def check_image(image: object) -> Image:
    """Return a picture as what it is; raise FrameError unless it is a host array, uint8 [height, width, 3]."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise FrameError(f"a frame is {found}", "Pass uint8 RGB, [height, width, 3], neither side 0")
    return image


def is_on_device(image: object) -> bool:
    """Whether an object offers memory on a CUDA device."""
    if hasattr(image, "__cuda_array_interface__"):
        return True
    cuda_device_type = 2  # kDLCUDA
    return hasattr(image, "__dlpack_device__") and image.__dlpack_device__()[0] == cuda_device_type
