"""The filter skips by the probability of StreamDiffusion's, drawn from the stream's seed and the frame's number."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.similar_image_filter import FrameFilter, SimilarImageFilter, cosine_between


def draw(seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def mixed(one: Image, other: Image, share: float) -> Image:
    """Return a picture of which a share of the lines is the other's."""
    picture = one.copy()
    picture[: int(64 * share)] = other[: int(64 * share)]
    return picture


def test_the_cosine_is_that_of_vectors_around_grey() -> None:
    one, other = draw(1), draw(2)
    first, second = (picture.ravel() / 127.5 - 1 for picture in (one, other))
    wanted = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosine_between(one, other) == pytest.approx(wanted, abs=1e-12)
    assert cosine_between(one, one) == 1
    assert cosine_between(one, 255 - one) == -1
    assert cosine_between(np.zeros_like(one), np.full_like(one, 127)) == 1  # the same direction: dark


def test_the_probability_rises_from_the_threshold_to_one() -> None:
    settings = SimilarImageFilter(0.9)
    found = [settings.skip_probability(cosine) for cosine in (-1, 0.9, 0.925, 0.95, 1)]
    assert found == pytest.approx([0, 0, 0.25, 0.5, 1])


def test_frames_are_skipped_as_often_as_their_probability_says() -> None:
    one = draw(1)
    other = mixed(one, draw(2), 0.25)
    probability = SimilarImageFilter(0.5).skip_probability(cosine_between(one, other))
    assert 0.4 < probability < 0.6
    watching = FrameFilter(SimilarImageFilter(0.5))
    watching.note(one, skipped=False)
    skipped = [watching.skips(other, seed=5, frame=frame) for frame in range(2000)]
    assert np.mean(skipped) == pytest.approx(probability, abs=0.04)
    assert skipped == [watching.skips(other, seed=5, frame=frame) for frame in range(2000)]
    assert skipped != [watching.skips(other, seed=6, frame=frame) for frame in range(2000)]


def test_no_random_state_is_touched() -> None:
    watching = FrameFilter(SimilarImageFilter(0.5))
    watching.note(draw(1), skipped=False)
    before = str(np.random.get_state()), random.getstate()
    watching.skips(draw(1), 0, 0)
    assert (str(np.random.get_state()), random.getstate()) == before


def test_a_frame_is_compared_with_the_last_one_that_was_computed() -> None:
    """So a picture that drifts is not skipped for ever."""
    watching = FrameFilter(SimilarImageFilter(0.9, 100))
    one, other = draw(1), draw(2)
    watching.note(one, skipped=False)
    watching.note(mixed(one, other, 0.5), skipped=True)
    assert watching.skips(one, 0, 0)
    assert not watching.skips(mixed(one, other, 0.5), 0, 0)


def test_no_more_are_skipped_in_a_row() -> None:
    watching = FrameFilter(SimilarImageFilter(0.9, 2))
    one = draw(1)
    assert not watching.skips(one, 0, 0)  # there is none before it
    for _ in range(2):
        watching.note(one, skipped=False)
        for _ in range(2):
            assert watching.skips(one, 0, 0)
            watching.note(one, skipped=True)
        assert not watching.skips(one, 0, 0)


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 1.0}, {"threshold": -0.1}, {"threshold": "1"}, {"maximum_skipped": 0}, {"maximum_skipped": 1.5}],
)
def test_what_is_no_filter_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ControlError, match="Use "):
        SimilarImageFilter(**settings)
