"""How much two pictures differ: PSNR, and SSIM (Wang et al., IEEE Transactions on Image Processing 13/4, 2004)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.runtime.frame import Image

Plane = NDArray[np.float64]
_PEAK = 255.0
_STABILISERS = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2  # C1 and C2, eq. 12
_WINDOW, _DEVIATION = 11, 1.5  # section III.C
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def find_psnr_db(found: Image, wanted: Image) -> float:
    """Return the peak signal-to-noise ratio of two pictures, uint8 [height, width, 3], in dB; infinity if equal."""
    error = np.mean((found.astype(np.float64) - wanted.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(_PEAK**2 / float(error))


def find_ssim(found: Image, wanted: Image) -> float:
    """Return the mean structural similarity of two pictures' luma, uint8 [height, width, 3]; 1 if they are equal.

    Windows are Gaussians of 11 pixels with a deviation of 1.5, all of them inside the picture. The smaller side must
    be 11 pixels or more.
    """
    one, other = (picture.astype(np.float64) @ np.array(_LUMA) for picture in (found, wanted))
    mean_one, mean_other = _blur(one), _blur(other)
    variance_one = _blur(one * one) - mean_one**2
    variance_other = _blur(other * other) - mean_other**2
    covariance = _blur(one * other) - mean_one * mean_other
    means, spreads = _STABILISERS
    likeness = (2 * mean_one * mean_other + means) * (2 * covariance + spreads)
    size = (mean_one**2 + mean_other**2 + means) * (variance_one + variance_other + spreads)
    return float((likeness / size).mean())


def _blur(plane: Plane) -> Plane:
    """Return Gaussian means, [height − 10, width − 10]."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _DEVIATION**2))
    weights /= weights.sum()
    rows = np.lib.stride_tricks.sliding_window_view(plane, _WINDOW, axis=0) @ weights
    blurred: Plane = np.lib.stride_tricks.sliding_window_view(rows, _WINDOW, axis=1) @ weights
    return blurred
