"""A sample has one size, whatever the frame's, and is a copy."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.runtime.pixel_sample import sample_pixels


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (63, 65), (1080, 1920)])
def test_any_size_gives_the_same_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    sample = sample_pixels(image)
    assert sample.shape == (64, 64, 3)
    assert sample.dtype == np.uint8
    if size == (64, 64):
        np.testing.assert_array_equal(sample, image)


def test_the_grid_is_even_and_centred() -> None:
    rows = np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None, None], (128, 256, 3))
    assert sample_pixels(rows)[:, 0, 0].tolist() == list(range(1, 128, 2))


def test_it_does_not_change_with_the_frame() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    sample = sample_pixels(image)
    image[:] = 255
    assert sample.max() == 0


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="Pass uint8 RGB"):
        sample_pixels(np.zeros((64, 64, 3), np.float32))
