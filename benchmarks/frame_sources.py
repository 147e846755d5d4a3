"""Pictures for whole frames: random, endless, and as fast as they are taken or at a fixed interval."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from live2diff_trt.runtime.frame import Image, NewFrame

_DIFFERENT = 32
_REMEMBERED = 256
_SPUN_SECONDS = 0.002
"""A sleep may end this much too late, so the last of a wait is spent looking at the clock."""


def draw_pictures(width: int, height: int, count: int = _DIFFERENT, seed: int = 0) -> list[Image]:
    """Return pictures of random bytes in ordinary memory: uint8 [height, width, 3] each."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def move_pictures(pictures: Sequence[Image], new_frame: NewFrame) -> list[Image]:
    """Return copies of pictures in new frames, as a source that was given ``new_frame`` makes them."""
    moved = [new_frame(*picture.shape[:2]) for picture in pictures]
    for frame, picture in zip(moved, pictures, strict=True):
        frame[:] = picture
    return moved


class PictureSource:
    """Gives the same pictures over and over, and remembers when it gave which.

    Args:
        pictures: to give.
        interval_ms: between two of them, at least; 0 gives one whenever it is asked for.
    """

    def __init__(self, pictures: list[Image], interval_ms: float = 0.0) -> None:
        self._pictures = pictures
        self._interval = interval_ms / 1000
        self._given: OrderedDict[int, float] = OrderedDict()

    def __iter__(self) -> Iterator[Image]:
        due, index = 0.0, 0
        while True:
            _wait_until(due)
            now = time.perf_counter()
            # By the clock, so that nothing adds up; but after a pause not at once what was missed.
            due = (due if now < due + self._interval else now) + self._interval
            self._remember(index, now)
            yield self._pictures[index % len(self._pictures)]
            index += 1

    def given_at(self, index: int) -> float | None:
        """Return when a picture was given, by ``time.perf_counter``; None for one not given yet, or long ago."""
        return self._given.get(index)

    def _remember(self, index: int, now: float) -> None:
        self._given[index] = now
        while len(self._given) > _REMEMBERED:
            self._given.popitem(last=False)


def _wait_until(due: float) -> None:
    left = due - time.perf_counter()
    if left > _SPUN_SECONDS:
        time.sleep(left - _SPUN_SECONDS)
    while time.perf_counter() < due:
        pass
