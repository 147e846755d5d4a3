"""Motion from one frame to the next, by OpenCV, and where it can be trusted. The only file that imports OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from live2diff_trt.runtime.frame import Image

Flow = NDArray[np.float32]
"""[height, width, 2]: how far each pixel moves right and down, in pixels."""
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMALLEST_SIDE = 16
"""Pixels: below it OpenCV's flow has no room for its patches."""
_FOLLOWED = 0.2
"""Share of pixels. In real clips cuts leave 0.00 to 0.08 of them, and fast motion 0.47 or more."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the pixels of a frame are in the next one.

    Attributes:
        flow: float32 [height, width, 2], right and down, in pixels.
        visible: bool [height, width]: the pixel is seen in both frames, and its flow can be trusted.
    """

    flow: Flow
    visible: Mask

    @property
    def share(self) -> float:
        """How much of the frame is visible, from 0 to 1."""
        return float(self.visible.mean())

    @property
    def is_lost(self) -> bool:
        """Whether too little is visible to speak of motion, as where the scene changes."""
        return self.share < _FOLLOWED


def follow_motion(frame: Image, later: Image) -> Motion:
    """Follow every pixel of a frame into a later one, both uint8 [height, width, 3]. The same frames, the same flow."""
    forward, backward = estimate_flow(frame, later), estimate_flow(later, frame)
    return Motion(forward, find_visible(forward, backward))


def estimate_flow(frame: Image, later: Image) -> Flow:
    """Estimate dense flow by inverse search (DIS, Kroeger et al. 2016, arXiv 1603.03590), OpenCV's preset "medium"."""
    grey, later_grey = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (frame, later))
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    nothing_known = cast(Flow, None)
    return cast(Flow, estimator.calc(grey, later_grey, nothing_known))


def warp_back(later: NDArray[Any], flow: Flow) -> NDArray[np.float32]:
    """Bring a later picture, [height, width, channels], back to where its pixels came from: float32 of its shape.

    Pixel x becomes later(x + flow(x)), bilinear; outside, the border's pixels are repeated.
    """
    columns, rows = _find_arrivals(flow)
    picture = later.astype(np.float32, copy=False)
    warped = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(NDArray[np.float32], warped)


def find_visible(forward: Flow, backward: Flow) -> Mask:
    """Find the pixels that are seen in both frames, by the rules of Ruder et al. 2016, arXiv 1604.08610.

    A pixel is left out if it moves out of the picture, if flow there and back does not lead it home
    (|f + b|² > 0.01 (|f|² + |b|²) + 0.5), or if it lies on a border of motion (|∇u|² + |∇v|² > 0.01 |f|² + 0.002).

    Args:
        forward: of the frame, to the later one.
        backward: of the later frame, back to this one.
    """
    back = warp_back(backward, forward)
    returns = _square(forward + back) <= 0.01 * (_square(forward) + _square(back)) + 0.5
    change: Plane = np.square(np.gradient(forward, axis=(0, 1))).sum(axis=(0, -1))
    smooth = change <= 0.01 * _square(forward) + 0.002
    return returns & smooth & _stay_inside(forward)


def _find_arrivals(flow: Flow) -> tuple[Plane, Plane]:
    """Return where each pixel arrives: its column and its row, [height, width] each."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]


def _stay_inside(flow: Flow) -> Mask:
    height, width = flow.shape[:2]
    columns, rows = _find_arrivals(flow)
    return (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)


def _square(vectors: Flow) -> Plane:
    """Return the squared length of every pixel's vector, [height, width]."""
    squares: Plane = np.square(vectors).sum(axis=-1)
    return squares
