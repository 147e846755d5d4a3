"""How far a clip departs from the motion it should have (Lai et al. 2018, arXiv 1808.00449)."""

from __future__ import annotations

import numpy as np

from live2diff_trt.evaluation.optical_flow import Motion, warp_back
from live2diff_trt.runtime.frame import Image


def find_warp_error(frame: Image, later: Image, motion: Motion) -> float | None:
    """Return the mean squared difference of a frame and the later one, brought back along ``motion``.

    The E_warp of Lai et al. 2018, arXiv 1808.00449: over the visible pixels and their three channels, of values in
    [0, 1]. 0 means that the frame moved and did nothing else.

    Args:
        frame, later: uint8 [height, width, 3], of the clip that is judged.
        motion: between the same two frames of the clip that it was made from.

    Returns:
        The error; None if the motion is lost.
    """
    if motion.is_lost:
        return None
    difference = frame.astype(np.float32) - warp_back(later, motion.flow)
    return float(np.square(difference[motion.visible] / 255).mean(dtype=np.float64))
