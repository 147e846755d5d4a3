"""Motion that is known is found, and what can't be followed is left out."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.evaluation.optical_flow import (
    SMALLEST_SIDE,
    Flow,
    estimate_flow,
    find_visible,
    follow_motion,
    warp_back,
)
from tests.evaluation.made_clips import pan, texture


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test change the number of OpenCV's threads."""
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def steady(right: float, down: float, height: int = 12, width: int = 16) -> Flow:
    return np.broadcast_to(np.array([right, down], np.float32), (height, width, 2)).copy()


@pytest.mark.parametrize("step", [(3, 2), (-4, 0), (0, 5), (0, 0)])
def test_a_pan_is_followed(step: tuple[int, int]) -> None:
    motion = follow_motion(*pan(2, step))
    assert motion.flow.shape == (64, 96, 2)
    assert motion.flow.dtype == np.float32
    assert motion.share > 0.7
    assert not motion.is_lost
    assert np.abs(motion.flow[motion.visible] - step).mean() < 0.05


def test_flow_is_the_same_twice_and_on_any_number_of_threads(threads: None) -> None:
    frames = pan(2)
    found = []
    for count in (1, 2, 5, 1):
        cv2.setNumThreads(count)
        found.append(estimate_flow(*frames))
    for flow in found[1:]:
        np.testing.assert_array_equal(flow, found[0])


def test_another_scene_is_lost() -> None:
    motion = follow_motion(texture(64, 96, seed=1), texture(64, 96, seed=2))
    assert motion.is_lost
    assert motion.share < 0.2


def test_the_smallest_frames_can_be_followed() -> None:
    frame = texture(SMALLEST_SIDE, SMALLEST_SIDE)
    assert np.abs(follow_motion(frame, frame).flow).max() < 0.1


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_whole_pixels_are_brought_back_exactly(right: int, down: int) -> None:
    picture = texture(12, 16)
    rows = np.clip(np.arange(12) + down, 0, 11)
    columns = np.clip(np.arange(16) + right, 0, 15)
    np.testing.assert_array_equal(warp_back(picture, steady(right, down)), picture[rows][:, columns])


def test_half_a_pixel_is_the_mean_of_two() -> None:
    picture = texture(12, 16).astype(np.float32)
    warped = warp_back(picture, steady(0.5, 0))
    np.testing.assert_allclose(warped[:, :-1], (picture[:, :-1] + picture[:, 1:]) / 2, rtol=1e-6)


def test_where_nothing_moves_all_is_visible() -> None:
    assert find_visible(steady(0, 0), steady(0, 0)).all()


@given(st.integers(-6, 6), st.integers(-6, 6))
def test_what_leaves_the_picture_is_not_visible(right: int, down: int) -> None:
    visible = find_visible(steady(right, down), steady(-right, -down))
    rows, columns = np.arange(12) + down, np.arange(16) + right
    inside = ((rows >= 0) & (rows < 12))[:, None] & ((columns >= 0) & (columns < 16))
    np.testing.assert_array_equal(visible, inside)


def test_what_does_not_come_home_is_not_visible() -> None:
    # |f + b|² = e² against 0.01 (|f|² + |b|²) + 0.5, with f = 3 and b = e − 3: the border is at e = 0.799.
    assert find_visible(steady(3, 0), steady(-3 + 0.75, 0))[:, :13].all()
    assert not find_visible(steady(3, 0), steady(-3 + 0.85, 0)).any()


def test_a_border_of_motion_is_not_visible() -> None:
    forward = steady(0, 0)
    forward[:, 8:] = 0, 1
    visible = find_visible(forward, -forward)
    # Central differences reach one pixel to either side; the lowest row of the moving half leaves the picture.
    assert not visible[:, 7:9].any()
    assert visible[:, :7].all()
    assert visible[:-1, 9:].all()
    assert not visible[-1, 9:].any()
