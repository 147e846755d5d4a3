"""The figures of an evaluation: frame by frame, their means, and where they are worst."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

FigureName = Literal["warp_error", "input_warp_error", "visible", "similarity", "input_similarity", "depth_error"]
"""The fields of ``FrameFigures`` beside its time."""

_NAMES: tuple[FigureName, ...] = get_args(FigureName)
_BEST_WHEN_LARGE: frozenset[FigureName] = frozenset({"visible", "similarity", "input_similarity"})


@dataclass(frozen=True)
class FrameFigures:
    """What was measured of one frame of an output. None stands where there is nothing to measure.

    Attributes:
        time: its presentation time, in seconds.
        warp_error: from the frame before to this one, along the input's motion: squared difference of values in [0, 1].
            None where the motion is lost.
        input_warp_error: the same of the input itself.
        visible: share of the pixels over which the warp errors are means, from 0 to 1.
        similarity: SSIM of this frame and the one before it; 1 if nothing moved.
        input_similarity: the same of the input.
        depth_error: between this frame and the input's: squared difference of depth in [−1, 1].
    """

    time: float
    warp_error: float | None = None
    input_warp_error: float | None = None
    visible: float | None = None
    similarity: float | None = None
    input_similarity: float | None = None
    depth_error: float | None = None


class Extreme(NamedTuple):
    """The worst of a figure's values, and the frame that has it."""

    value: float
    frame: int


@dataclass(frozen=True)
class Evaluation:
    """All frames' figures, in order."""

    frames: tuple[FrameFigures, ...]

    def values(self, name: FigureName) -> tuple[float | None, ...]:
        """Return a figure frame by frame; one that compares a frame with the one before begins with None."""
        return tuple(getattr(frame, name) for frame in self.frames)

    def mean(self, name: FigureName) -> float | None:
        """Return a figure's mean over the frames that have it; None if none has."""
        known = [value for value in self.values(name) if value is not None]
        return float(np.mean(known)) if known else None

    def worst(self, name: FigureName) -> Extreme | None:
        """Return a figure's worst value, the first one of equals; None if no frame has it."""
        known = [Extreme(value, frame) for frame, value in enumerate(self.values(name)) if value is not None]
        find_worst = min if name in _BEST_WHEN_LARGE else max
        return find_worst(known, key=lambda extreme: extreme.value, default=None)

    @property
    def lost(self) -> int:
        """Frames that could not be followed from the one before, as where the scene changes: no warp error."""
        return sum(frame.warp_error is None for frame in self.frames[1:])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: means, and every frame's figures."""
        return {
            "frames": len(self.frames),
            "means": {name: self.mean(name) for name in _NAMES},
            "per_frame": [asdict(frame) for frame in self.frames],
        }
