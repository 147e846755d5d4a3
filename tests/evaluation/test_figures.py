"""Figures are gathered: means over the frames that have them, and the worst of them."""

from __future__ import annotations

import json

import pytest

from live2diff_trt.evaluation.figures import Evaluation, Extreme, FrameFigures

EVALUATION = Evaluation(
    (
        FrameFigures(time=0.0, depth_error=0.5),
        FrameFigures(0.04, warp_error=0.1, input_warp_error=0.01, visible=0.9, similarity=0.8, depth_error=0.1),
        FrameFigures(0.08, warp_error=None, input_warp_error=None, visible=0.1, similarity=0.3, depth_error=0.3),
        FrameFigures(0.12, warp_error=0.4, input_warp_error=0.03, visible=0.8, similarity=0.3, depth_error=0.3),
    )
)


def test_means_are_over_the_frames_that_have_a_figure() -> None:
    assert EVALUATION.values("warp_error") == (None, 0.1, None, 0.4)
    assert EVALUATION.mean("warp_error") == pytest.approx(0.25)
    assert EVALUATION.mean("depth_error") == pytest.approx(0.3)
    assert EVALUATION.mean("input_similarity") is None


def test_the_worst_is_the_largest_error_and_the_smallest_similarity() -> None:
    assert EVALUATION.worst("warp_error") == Extreme(0.4, frame=3)
    assert EVALUATION.worst("depth_error") == Extreme(0.5, frame=0)
    assert EVALUATION.worst("similarity") == Extreme(0.3, frame=2)
    assert EVALUATION.worst("visible") == Extreme(0.1, frame=2)
    assert EVALUATION.worst("input_similarity") is None


def test_frames_that_could_not_be_followed_are_counted_but_the_first() -> None:
    assert EVALUATION.lost == 1


def test_json_has_means_and_every_frame() -> None:
    values = json.loads(json.dumps(EVALUATION.to_json(), allow_nan=False))
    assert values["frames"] == len(values["per_frame"]) == 4
    assert values["means"] == {
        "warp_error": pytest.approx(0.25),
        "input_warp_error": pytest.approx(0.02),
        "visible": pytest.approx(0.6),
        "similarity": pytest.approx(1.4 / 3),
        "input_similarity": None,
        "depth_error": pytest.approx(0.3),
    }
    assert values["per_frame"][2] == {
        "time": 0.08,
        "warp_error": None,
        "input_warp_error": None,
        "visible": 0.1,
        "similarity": 0.3,
        "input_similarity": None,
        "depth_error": 0.3,
    }
