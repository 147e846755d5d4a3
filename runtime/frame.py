"""A frame on its way in and on its way out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


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
        image: uint8 RGB, [height, width, 3] at the stream's size; the receiver owns it.
        time: the presentation time it came with, in seconds.
        index: which frame of the source it is, from 0.
        latency_ms: from the moment the stream took the frame to its delivery.
    """

    image: Image
    time: Fraction
    index: int
    latency_ms: float
