"""The warp error is what its definition says, on motion and changes that are known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.evaluation.optical_flow import Motion, follow_motion
from live2diff_trt.evaluation.warp_error import find_warp_error
from live2diff_trt.runtime.frame import Image
from tests.evaluation.made_clips import flicker, pan, texture

STEP = (3, 2)


def still(height: int, width: int) -> Motion:
    return Motion(np.zeros((height, width, 2), np.float32), np.ones((height, width), np.bool_))


def warp_error(frames: Iterable[Image], motion: Motion) -> float:
    frame, later = frames
    error = find_warp_error(frame, later, motion)
    assert error is not None
    return error


def noise(seed: int, height: int = 64, width: int = 96) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(st.integers(0, 255), st.integers(0, 255))
def test_of_flat_frames_it_is_the_square_of_their_difference(one: int, other: int) -> None:
    frames = (np.full((4, 6, 3), value, np.uint8) for value in (one, other))
    assert warp_error(frames, still(4, 6)) == pytest.approx(((one - other) / 255) ** 2, rel=1e-5)


def test_of_one_channel_it_is_a_third() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    later = frame.copy()
    later[..., 1] = 255
    assert warp_error((frame, later), still(4, 6)) == pytest.approx(1 / 3)


def test_it_is_over_visible_pixels_alone() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    later = frame.copy()
    later[:2] = 255
    motion = still(4, 6)
    motion.visible[:1] = False
    assert warp_error((frame, later), motion) == pytest.approx(1 / 3)


def test_without_motion_to_follow_there_is_none() -> None:
    motion = still(10, 10)
    motion.visible[:] = False
    assert find_warp_error(noise(0, 10, 10), noise(1, 10, 10), motion) is None
    motion.visible[0] = motion.visible[1] = True
    assert find_warp_error(noise(0, 10, 10), noise(1, 10, 10), motion) is not None
    motion.visible[0, 0] = False
    assert find_warp_error(noise(0, 10, 10), noise(1, 10, 10), motion) is None


def test_what_only_moves_has_nearly_none_in_whatever_colours() -> None:
    frames = pan(2, STEP)
    motion = follow_motion(*frames)
    assert warp_error(frames, motion) < 3e-5
    negative, later_negative = (255 - frame[..., ::-1] for frame in frames)
    assert warp_error((negative, later_negative), motion) < 3e-5


@pytest.mark.parametrize("amplitude", [2, 8, 15])
def test_flicker_adds_the_square_of_its_swing(amplitude: int) -> None:
    frames = pan(2, STEP)
    motion = follow_motion(*frames)
    added = warp_error(flicker(frames, amplitude), motion) - warp_error(frames, motion)
    assert added == pytest.approx((2 * amplitude / 255) ** 2, rel=0.03)


def test_noise_has_twice_its_variance() -> None:
    frame = texture(64, 96)
    # Whole numbers from 0 to 255, all alike: a variance of (256² − 1) / 12.
    expected = 2 * (256**2 - 1) / 12 / 255**2
    assert warp_error((noise(0), noise(1)), follow_motion(frame, frame)) == pytest.approx(expected, rel=0.03)


def test_a_frozen_output_of_a_moving_input_departs_from_it() -> None:
    frames = pan(2, STEP)
    motion = follow_motion(*frames)
    moved = np.roll(frames[0], (-STEP[1], -STEP[0]), (0, 1))
    expected = np.square((frames[0].astype(np.float64) - moved)[motion.visible] / 255).mean()
    found = warp_error((frames[0], frames[0]), motion)
    assert found == pytest.approx(expected, rel=0.05)
    assert found > 100 * warp_error(frames, motion)


def test_what_is_uncovered_or_covered_does_not_count() -> None:
    background, square = texture(96, 128, seed=1), texture(40, 40, seed=2)
    frame, later = background.copy(), background.copy()
    frame[24:64, 30:70] = square
    later[24:64, 38:78] = square
    motion = follow_motion(frame, later)
    everywhere = Motion(motion.flow, np.ones_like(motion.visible))
    covered = motion.visible[24:64, 70:78]
    assert covered.mean() < 0.1
    assert motion.share > 0.8
    assert warp_error((frame, later), motion) < warp_error((frame, later), everywhere) / 8
