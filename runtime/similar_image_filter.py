"""The stochastic similarity filter of StreamDiffusion (arXiv 2312.12491): frames like the last one are skipped."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from live2diff_trt.bundle.noise import Purpose, philox_words
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image


@dataclass(frozen=True)
class SimilarImageFilter:
    """When a frame is skipped.

    Attributes:
        threshold: cosine between frames, 0 to below 1, above which they may be skipped.
        maximum_skipped: how many may be skipped in a row, 1 or more.

    Raises:
        ControlError: if one of them is out of its range.
    """

    threshold: float = 0.98
    maximum_skipped: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, float | int) or not 0 <= self.threshold < 1:
            raise ControlError(f"the filter's threshold is {self.threshold!r}", "Use a cosine from 0 to below 1")
        if not isinstance(self.maximum_skipped, int) or self.maximum_skipped < 1:
            raise ControlError(f"the filter skips {self.maximum_skipped!r} frames in a row", "Use 1 or more")

    def skip_probability(self, cosine: float) -> float:
        """Return 0 up to the threshold, and from there a line that reaches 1 where frames are the same."""
        return max(0.0, (cosine - self.threshold) / (1 - self.threshold))


class FrameFilter:
    """The filter at work on one stream.

    Args:
        settings: when a frame is skipped.
    """

    def __init__(self, settings: SimilarImageFilter) -> None:
        self._settings = settings
        self._reference: Image | None = None
        self._skipped = 0

    def skips(self, sample: Image, seed: int, frame: int) -> bool:
        """Decide about a frame. It is compared with the last one that was computed.

        Args:
            sample: its pixels, uint8 [64, 64, 3].
            seed: of the stream's noise.
            frame: its number; its draw follows from seed and number alone.
        """
        if self._reference is None or self._skipped >= self._settings.maximum_skipped:
            return False
        probability = self._settings.skip_probability(cosine_between(self._reference, sample))
        return _draw_uniform(seed, frame) < probability

    def note(self, sample: Image, *, skipped: bool) -> None:
        """Count a frame that was skipped; compare the frames that follow with one that was not."""
        self._skipped = self._skipped + 1 if skipped else 0
        if not skipped:
            self._reference = sample

    def forget(self) -> None:
        """Compare the next frame with none."""
        self._reference, self._skipped = None, 0


def cosine_between(one: Image, other: Image) -> float:
    """Return the cosine between two pictures, uint8 and of one shape, as vectors of values in [−1, 1].

    It is computed in integers: 1 where they are the same, and the same everywhere.
    """
    first, second = (2 * picture.astype(np.int64) - 255 for picture in (one, other))  # no value becomes 0
    return float((first * second).sum() / sqrt((first * first).sum() * (second * second).sum()))


def _draw_uniform(seed: int, frame: int) -> float:
    """Return a number from 0 to below 1."""
    return float(philox_words(1, seed, frame, 0, Purpose.SKIP)[0, 0]) / 2**32
