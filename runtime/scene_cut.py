"""Finds cuts: two frames in a row that have little in common."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image

_BINS = 16


@dataclass(frozen=True)
class SceneCut:
    """What counts as a cut.

    Attributes:
        threshold: distance between two frames in a row, above 0 and below 1, beyond which they are of two scenes.

    Raises:
        ControlError: if it is out of that range.
    """

    threshold: float = 0.15

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, float | int) or not 0 < self.threshold < 1:
            raise ControlError(f"the threshold of a cut is {self.threshold!r}", "Use a distance between 0 and 1")


class CutDetector:
    """Looks at every frame of one stream."""

    def __init__(self, settings: SceneCut) -> None:
        self._settings = settings
        self._last: Image | None = None

    def is_cut(self, sample: Image) -> bool:
        """Whether a frame, of which these are pixels, uint8 [64, 64, 3], begins another scene than the last one's."""
        return self._last is not None and scene_distance(self._last, sample) > self._settings.threshold

    def note(self, sample: Image) -> None:
        """Compare the next frame with this one."""
        self._last = sample

    def forget(self) -> None:
        """Compare the next frame with none."""
        self._last = None


def scene_distance(one: Image, other: Image) -> float:
    """Return how little two pictures of one shape, uint8 [..., 3], have in common: 0 to 1.

    It is the geometric mean of how much changed in its place, and how much in colour wherever it is. Motion changes
    mostly the first, and a cut both.
    """
    in_place = float(np.abs(one.astype(np.int16) - other).mean()) / 255
    return sqrt(in_place * colour_distance(one, other))


def colour_distance(one: Image, other: Image) -> float:
    """Return which share of two pictures' values, uint8 [..., 3], lie in different sixteenths of their range: 0 to 1.

    It is the total variation between histograms, the channels' mean; where things are in the picture does not matter.
    """
    first, second = (_histograms(picture) for picture in (one, other))
    return float(np.abs(first - second).sum() / (2 * first.sum()))


def _histograms(picture: Image) -> NDArray[np.int_]:
    """Return the histogram of each channel, [3, 16], of equal sums."""
    channels = (picture // (256 // _BINS)).reshape(-1, 3).T
    return np.stack([np.bincount(channel, minlength=_BINS) for channel in channels])
