"""Clips with known answers: textures that move as told, and what a bad stream would make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from live2diff_trt.evaluation.frame_pairs import FramePair
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.sink import open_sink

RATE = Fraction(25)


def texture(height: int, width: int, seed: int = 0) -> Image:
    """Return a smooth random picture, uint8 [height, width, 3], of values from 30 to 225."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    low, high = smooth.min(), smooth.max()
    return np.rint((smooth - low) / (high - low) * 195 + 30).astype(np.uint8)


def pan(count: int, step: tuple[int, int] = (3, 2), size: tuple[int, int] = (96, 64), seed: int = 0) -> list[Image]:
    """Return frames of ``size``, width and height, whose picture moves by ``step`` pixels a frame, right and down."""
    (right, down), (width, height) = step, size
    whole = texture(height + abs(down) * count, width + abs(right) * count, seed)
    tops = [down * (count - index) if down > 0 else -down * index for index in range(count)]
    lefts = [right * (count - index) if right > 0 else -right * index for index in range(count)]
    return [
        np.ascontiguousarray(whole[top : top + height, left : left + width])
        for top, left in zip(tops, lefts, strict=True)
    ]


def flicker(frames: Iterable[Image], amplitude: int) -> list[Image]:
    """Return frames that are brighter and darker by ``amplitude``, by turns."""
    return [
        np.clip(frame.astype(np.int16) + (amplitude if index % 2 else -amplitude), 0, 255).astype(np.uint8)
        for index, frame in enumerate(frames)
    ]


def shuffle(frames: Sequence[Image], seed: int = 1) -> list[Image]:
    """Return the frames in a random order."""
    return [frames[index] for index in np.random.default_rng(seed).permutation(len(frames))]


def pair_up(inputs: Iterable[Image], outputs: Iterable[Image]) -> list[FramePair]:
    """Return pairs of frames at 25 a second."""
    return [
        FramePair(before, after, index / RATE)
        for index, (before, after) in enumerate(zip(inputs, outputs, strict=True))
    ]


def write_clip(path: Path, frames: Sequence[Image], rate: Fraction = RATE) -> Path:
    """Write frames as a folder of pictures, exactly, or as a video, nearly."""
    height, width = frames[0].shape[:2]
    with open_sink(str(path), width=width, height=height, frame_rate=rate) as sink:
        for index, frame in enumerate(frames):
            sink.write(FinishedFrame(frame, index / rate, index, latency_ms=0.0))
    return path
