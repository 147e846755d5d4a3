"""An output is measured frame by frame, and no more frames are kept than that takes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from live2diff_trt.evaluation.errors import EvaluationError
from live2diff_trt.evaluation.evaluate import evaluate_frames
from live2diff_trt.evaluation.figures import Evaluation, FigureName
from live2diff_trt.evaluation.frame_pairs import FramePair
from live2diff_trt.evaluation.picture_quality import find_ssim
from live2diff_trt.runtime.frame import Image
from tests.evaluation.made_clips import flicker, pair_up, pan, shuffle, texture


def evaluated(inputs: list[Image], outputs: list[Image]) -> Evaluation:
    return Evaluation(tuple(evaluate_frames(pair_up(inputs, outputs), None)))


def mean(evaluation: Evaluation, name: FigureName) -> float:
    found = evaluation.mean(name)
    assert found is not None
    return found


def test_a_frame_is_compared_with_the_one_before() -> None:
    clip = pan(4)
    evaluation = evaluated(clip, flicker(clip, 10))
    first, *others = evaluation.frames
    assert [first.warp_error, first.input_warp_error, first.visible, first.similarity] == [None] * 4
    assert [frame.time for frame in evaluation.frames] == pytest.approx([0, 0.04, 0.08, 0.12])
    for index, frame in enumerate(others):
        assert frame.warp_error == pytest.approx((20 / 255) ** 2, rel=0.05)
        assert frame.input_warp_error is not None
        assert frame.input_warp_error < 3e-5
        assert frame.input_similarity == pytest.approx(find_ssim(clip[index + 1], clip[index]))
    assert evaluation.values("depth_error") == (None,) * 4


def test_an_input_as_output_has_its_own_figures() -> None:
    evaluation = evaluated(pan(4), pan(4))
    assert evaluation.values("warp_error") == evaluation.values("input_warp_error")
    assert evaluation.values("similarity") == evaluation.values("input_similarity")


def test_a_still_clip_is_similar_to_itself() -> None:
    still = [texture(64, 96)] * 3
    evaluation = evaluated(still, still)
    assert evaluation.mean("similarity") == pytest.approx(1)
    assert evaluation.mean("warp_error") == pytest.approx(0, abs=1e-6)
    assert evaluation.mean("visible") == 1


def test_shuffled_frames_are_far_worse_than_flicker() -> None:
    clip = pan(8)
    steady, flickering, shuffled = (evaluated(clip, output) for output in (clip, flicker(clip, 5), shuffle(clip)))
    assert mean(shuffled, "warp_error") > 4 * mean(flickering, "warp_error") > 50 * mean(steady, "warp_error")
    assert mean(shuffled, "similarity") < mean(flickering, "similarity") < mean(steady, "similarity")


def test_a_change_of_scene_has_no_warp_error() -> None:
    clip = pan(3, seed=1) + pan(3, seed=2)
    evaluation = evaluated(clip, clip)
    assert [error is None for error in evaluation.values("warp_error")] == [True, False, False, True, False, False]
    assert evaluation.lost == 1
    assert mean(evaluation, "warp_error") < 3e-5


def test_the_same_clips_have_the_same_figures() -> None:
    clip = pan(4)
    assert evaluated(clip, flicker(clip, 5)) == evaluated(clip, flicker(clip, 5))


def test_two_pairs_are_kept_and_no_more() -> None:
    made: list[weakref.ref[FramePair]] = []
    alive: list[int] = []

    def endless() -> Iterator[FramePair]:
        frame = texture(32, 32)
        while True:
            pair = FramePair(frame.copy(), frame.copy(), pair_up([frame], [frame])[0].time)
            made.append(weakref.ref(pair))
            yield pair
            del pair

    for count, _ in enumerate(evaluate_frames(endless(), None), 1):
        alive.append(sum(reference() is not None for reference in made))
        if count == 8:
            break
    assert max(alive) <= 2
    assert len(made) == 8


@pytest.mark.parametrize("count", [0, 1])
def test_consistency_takes_two_frames(count: int) -> None:
    frames = [texture(64, 64)] * count
    with pytest.raises(EvaluationError, match=rf"the clips have {count} frames?\. Compare two or more"):
        evaluated(frames, frames)


def test_frames_may_be_too_small() -> None:
    frames = [np.zeros((15, 64, 3), np.uint8)] * 2
    with pytest.raises(EvaluationError, match="in frames of 64x15 pixels"):
        evaluated(frames, frames)
