"""A source without a file: shapes that move over a gradient."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image, NewFrame, SourceFrame, empty_frame
from live2diff_trt.runtime.source_health import SourceHealth

Mask = NDArray[np.bool_]
Axis = NDArray[np.float64]

SECONDS_PER_ROUND = 4
WHITE, BLACK, YELLOW, RED, BLUE = (245, 245, 245), (16, 16, 20), (250, 210, 40), (220, 50, 47), (38, 80, 200)


class TestPatternSource(ClosedAtEnd):
    """A bar that sweeps, a square that turns, a disc that circles: the same frames at every run.

    Args:
        width, height: in pixels, at least 16.
        frame_rate: in frames per second.
        frame_count: where it ends; None for no end.

    Raises:
        SourceError: no video has such a size, rate or count.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes for tests by their name

    audio_path: Path | None = None
    is_live = False

    def __init__(
        self,
        width: int = 640,
        height: int = 360,
        frame_rate: Fraction = Fraction(25),
        frame_count: int | None = None,
    ) -> None:
        if min(width, height) < 16 or frame_rate <= 0 or (frame_count is not None and frame_count < 1):
            wanted = f"{width}x{height} at {frame_rate} frames per second, {frame_count} frames"
            raise SourceError(
                f"there is no test pattern of {wanted}",
                "Use 16x16 pixels or more, a rate above 0 and at least 1 frame",
            )
        self.width, self.height = width, height
        self.frame_rate, self.frame_count = frame_rate, frame_count
        self.new_frame: NewFrame = empty_frame
        self.health = SourceHealth()
        self._frames = self._generate()

    def __iter__(self) -> Iterator[SourceFrame]:
        return self._frames

    def close(self) -> None:
        """End the pattern."""
        self._frames.close()

    def _generate(self) -> Generator[SourceFrame, None, None]:
        canvas = _Canvas(self.width, self.height)
        index = 0
        while self.frame_count is None or index < self.frame_count:
            time = index / self.frame_rate
            yield SourceFrame(canvas.draw(time, self.new_frame), time)
            index += 1


class _Canvas:
    """Draws the pattern. Coordinates are centred; the height runs from -1 to 1, so shapes keep their form."""

    def __init__(self, width: int, height: int) -> None:
        self.x: Axis = (np.arange(width) * 2 + 1 - width)[None, :] / height
        self.y: Axis = (np.arange(height) * 2 + 1 - height)[:, None] / height
        self.edge = width / height
        self.background = self._gradient()

    def draw(self, time: Fraction, new_frame: NewFrame) -> Image:
        """Return the picture at ``time`` seconds: uint8 RGB [height, width, 3], in a new frame."""
        rounds = float(time / SECONDS_PER_ROUND)
        image = new_frame(*self.background.shape[:2])
        image[:] = self.background
        image[self._bar(rounds)] = WHITE
        for mask, colour in zip(self._square(rounds), (RED, BLUE), strict=True):
            image[mask] = colour
        image[self._disc(rounds, 0.34)] = BLACK
        image[self._disc(rounds, 0.28)] = YELLOW
        return image

    def _gradient(self) -> Image:
        across = (self.x / self.edge + 1) / 2 + 0 * self.y
        down = (self.y + 1) / 2 + 0 * self.x
        return (np.stack([across, down, 1 - across], axis=2) * 200 + 28).astype(np.uint8)

    def _bar(self, rounds: float) -> Mask:
        centre = self.edge * (2 * (rounds % 1) - 1)
        return np.broadcast_to(np.abs(self.x - centre) < 0.08, self.background.shape[:2])

    def _square(self, rounds: float) -> tuple[Mask, Mask]:
        """Its two halves: one colour would hide a quarter turn."""
        sine, cosine = math.sin(math.tau * rounds), math.cos(math.tau * rounds)
        along = cosine * self.x + sine * self.y
        across = cosine * self.y - sine * self.x
        inside = np.maximum(np.abs(along), np.abs(across)) < 0.4
        return inside & (along < 0), inside & (along >= 0)

    def _disc(self, rounds: float, radius: float) -> Mask:
        centre_x = 0.6 * self.edge * math.cos(math.tau * rounds)
        centre_y = 0.6 * math.sin(math.tau * rounds)
        inside: Mask = (self.x - centre_x) ** 2 + (self.y - centre_y) ** 2 < radius**2
        return inside
