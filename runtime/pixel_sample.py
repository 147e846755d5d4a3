"""A few pixels that stand for a frame where two frames are compared, so that looking costs next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.runtime.frame import Image, check_image, is_on_device

SAMPLE_SIDE = 64


def sample_pixels(image: Any) -> Image:
    """Return pixels of an even grid, uint8 [64, 64, 3], whatever the frame's size.

    Pixels are picked, not averaged: the cosine between two samples estimates the one between the frames themselves.

    Args:
        image: uint8 RGB, [any height, any width, 3], on the host.

    Raises:
        FrameError: if it is something else, or lies on a device, where it is not looked at.
    """
    if is_on_device(image):
        raise FrameError(
            "a frame lies on the device, and frames are compared on the host",
            "Pass frames in host memory, or turn the similar-image filter and the re-warm on cuts off",
        )
    pixels = check_image(image)
    height, width, _ = pixels.shape
    return pixels[_grid(height)[:, None], _grid(width)]


def _grid(size: int) -> NDArray[np.int_]:
    return (2 * np.arange(SAMPLE_SIDE) + 1) * size // (2 * SAMPLE_SIDE)
