"""Cuts of real videos are found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.pixel_sample import sample_pixels
from live2diff_trt.runtime.scene_cut import CutDetector, SceneCut, colour_distance, scene_distance
from live2diff_trt.runtime.source import FileSource, TestPatternSource


def find_cuts(images: Iterable[Image]) -> list[int]:
    detector, cuts = CutDetector(SceneCut()), []
    for index, image in enumerate(images):
        sample = sample_pixels(image)
        if detector.is_cut(sample):
            cuts.append(index)
        detector.note(sample)
    return cuts


@pytest.mark.parametrize(
    ("name", "cuts"),
    [("bikes.mp4", [30, 76, 137, 187, 242]), ("bigbuckbunny.mp4", []), ("carphone_pristine.mp4", [])],
)
def test_cuts_of_a_real_video(clip: Callable[[str], Path], name: str, cuts: list[int]) -> None:
    """Those of bikes.mp4 were looked at one by one; a van that fills the picture, at frame 100, is none."""
    with FileSource(clip(name)) as source:
        assert find_cuts(frame.image for frame in source) == cuts


def test_a_test_pattern_has_none() -> None:
    with TestPatternSource(320, 180) as source:
        assert find_cuts(frame.image for frame in islice(source, 100)) == []


def test_sensor_noise_and_a_change_of_size_are_none() -> None:
    random = np.random.default_rng(1)
    scene = np.repeat(np.repeat(random.integers(20, 230, (9, 16, 3)), 40, 0), 40, 1)
    noisy = [np.clip(scene + random.normal(0, 8, scene.shape), 0, 255).astype(np.uint8) for _ in range(5)]
    assert find_cuts([*noisy, *(frame[::2, ::2] for frame in noisy)]) == []


def test_distances_are_between_nothing_and_everything() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert scene_distance(black, white) == colour_distance(black, white) == 1
    assert scene_distance(white, white) == colour_distance(white, white) == 0


def test_what_only_moves_keeps_its_colours() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    assert colour_distance(picture, np.roll(picture, 20, axis=1)) == 0


@pytest.mark.parametrize("threshold", [0, 1, -1, 2, "0.5", None])
def test_what_is_no_threshold_is_refused(threshold: Any) -> None:
    with pytest.raises(ControlError, match="Use a distance between 0 and 1"):
        SceneCut(threshold)
