"""Looks at frames before they are computed: is one like the last, or the first of another scene?"""

from __future__ import annotations

from typing import Any

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.pixel_sample import sample_pixels
from live2diff_trt.runtime.scene_cut import CutDetector, SceneCut
from live2diff_trt.runtime.similar_image_filter import FrameFilter, SimilarImageFilter


class FrameWatch:
    """What one stream looks out for. With nothing to look out for, no frame is looked at."""

    def __init__(self) -> None:
        self._filter: FrameFilter | None = None
        self._detector: CutDetector | None = None

    def set_filter(self, settings: SimilarImageFilter | None) -> None:
        """Look for similar frames from here on, or no more; raise ControlError if it is something else."""
        if not isinstance(settings, SimilarImageFilter | None):
            raise ControlError(f"a similar-image filter is {settings!r}", "Pass a SimilarImageFilter, or None")
        self._filter = None if settings is None else FrameFilter(settings)

    def set_cut(self, settings: SceneCut | None) -> None:
        """Look for cuts from here on, or no more; raise ControlError if it is something else."""
        if not isinstance(settings, SceneCut | None):
            raise ControlError(f"what counts as a cut is {settings!r}", "Pass a SceneCut, or None")
        self._detector = None if settings is None else CutDetector(settings)

    def forget(self) -> None:
        """Compare the next frame with none of the last ones."""
        for watcher in (self._filter, self._detector):
            if watcher is not None:
                watcher.forget()

    def look(self, image: Any) -> Image | None:
        """Return what is to be seen of a frame; raise FrameError if that can't be looked at. None: nobody looks."""
        return None if self._filter is None and self._detector is None else sample_pixels(image)

    def is_cut(self, sample: Image | None) -> bool:
        """Whether a frame begins another scene."""
        return sample is not None and self._detector is not None and self._detector.is_cut(sample)

    def skips(self, sample: Image | None, seed: int, frame: int) -> bool:
        """Whether a frame need not be computed; its draw follows from the stream's seed and its number."""
        return sample is not None and self._filter is not None and self._filter.skips(sample, seed, frame)

    def note(self, sample: Image | None, *, skipped: bool) -> None:
        """Remember a frame that was taken."""
        if sample is None:
            return
        if self._detector is not None:
            self._detector.note(sample)
        if self._filter is not None:
            self._filter.note(sample, skipped=skipped)
