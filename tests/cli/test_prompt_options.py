"""Prompts on the command line: several at once, and others later."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.cli.main import app
from live2diff_trt.cli.prompt_options import PromptChange, blend_prompts, follow_changes, read_changes
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import SourceFrame
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.scene_cut import SceneCut
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.stream import Stream


@pytest.mark.parametrize(
    ("prompts", "weights", "shares"),
    [
        ([], [], {"": 1}),
        (["a fox"], [], {"a fox": 1}),
        (["a fox: red", "a cat"], [], {"a fox: red": 0.5, "a cat": 0.5}),
        (["a fox", "a cat"], [3, 1], {"a fox": 0.75, "a cat": 0.25}),
    ],
)
def test_a_blend_has_a_weight_for_each_prompt(
    prompts: Sequence[str], weights: Sequence[float], shares: dict[str, float]
) -> None:
    assert blend_prompts(prompts, weights, "spherical").shares == shares


@pytest.mark.parametrize(
    ("prompts", "weights", "message"),
    [
        (["a fox", "a cat"], [1], "Give each prompt its weight"),
        (["a fox"], [1, 2], "Give each prompt its weight"),
        (["a fox", "a fox"], [], "Give it once"),
        (["a fox"], [-1], "Use a finite number, 0 or more"),
    ],
)
def test_a_blend_that_is_none_is_refused(prompts: Sequence[str], weights: Sequence[float], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        blend_prompts(prompts, weights, "linear")


def test_changes_come_in_the_order_of_their_times() -> None:
    assert read_changes(["10: night: dark", " 2.5:day "]) == [
        PromptChange(Fraction(5, 2), "day"),
        PromptChange(Fraction(10), "night: dark"),
    ]


@pytest.mark.parametrize("text", ["a fox", "-1:a fox", "five:a fox", "1.:x", ""])
def test_a_change_without_a_time_is_refused(text: str) -> None:
    with pytest.raises(ControlError, match="Write SECONDS:PROMPT"):
        read_changes([text])


def test_a_change_is_made_before_the_first_frame_that_it_is_for() -> None:
    made: list[Any] = []

    class Recorder:
        def set_prompt(self, prompt: str, transition: Transition | None) -> None:
            made.append((prompt, transition))

    frames = [SourceFrame(np.zeros((1, 1, 3), np.uint8), Fraction(index, 10)) for index in range(5)]
    turning = Transition(2)
    followed = follow_changes(frames, read_changes(["0.15:b", "0:a", "0.15:c", "9:d"]), turning, Recorder())  # type: ignore[arg-type]
    seen = [len(made) for _ in followed]
    assert seen == [1, 1, 3, 3, 3]
    assert made == [("a", turning), ("b", turning), ("c", turning)]


def test_the_options_of_run_reach_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def open_stream(bundle: Path, **options: Any) -> None:
        asked.update(options)
        raise Live2DiffError("that is all that is asked here", "Ask no more")

    monkeypatch.setattr(Stream, "open", open_stream)
    words = ["--prompt", "a fox", "-w", "1", "-p", "a cat", "--weight", "3", "--interpolation", "spherical"]
    words += ["--similar-image-filter", "0.9", "--max-skipped", "4", "--rewarm-on-cut", "--backend", "onnxruntime"]
    assert CliRunner().invoke(app, ["run", str(tmp_path), "-i", "test-pattern", *words]).exit_code == 1
    assert asked["prompt"] == PromptBlend({"a fox": 1, "a cat": 3}, "spherical")
    assert asked["similar_image_filter"] == SimilarImageFilter(0.9, 4)
    assert asked["rewarm_on_cut"] == SceneCut()


def test_a_control_that_is_none_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    for words, message in (
        (["--then", "later"], "Write SECONDS:PROMPT"),
        (["--transition", "0"], "Use a finite number above 0"),
        (["--similar-image-filter", "1"], "Use a cosine from 0 to below 1"),
    ):
        result = CliRunner().invoke(app, ["run", str(tmp_path), *words])
        assert isinstance(result.exception, ControlError)
        assert message in str(result.exception)
