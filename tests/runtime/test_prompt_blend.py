"""Blends and transitions are checked when they are described."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition


def test_shares_sum_to_one_and_leave_out_what_has_no_weight() -> None:
    assert PromptBlend({"a": 1, "b": 0, "c": np.float64(3)}).shares == {"a": 0.25, "c": 0.75}


def test_a_blend_is_not_changed_by_what_it_was_made_of() -> None:
    weights = {"a": 1.0}
    blend = PromptBlend(weights)
    weights["b"] = 1.0
    assert dict(blend.weights) == {"a": 1.0}
    with pytest.raises(TypeError):
        blend.weights["b"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "Give one a weight above 0"),
        ({"a": 0, "b": 0.0}, "Give one a weight above 0"),
        ({"a": -1, "b": 2}, "Use a finite number, 0 or more"),
        ({"a": nan}, "Use a finite number"),
        ({"a": inf}, "Use a finite number"),
        ({"a": "1"}, "Use a finite number"),
        ({3: 1}, "Pass prompts and weights"),
        (["a", "b"], "Pass prompts and weights"),
    ],
)
def test_what_is_no_blend_is_refused(weights: Any, message: str) -> None:
    with pytest.raises(ControlError, match=message):
        PromptBlend(weights)


def test_an_interpolation_that_is_not_known_is_refused() -> None:
    for make in (lambda: PromptBlend({"a": 1}, "cubic"), lambda: Transition(2, interpolation="cubic")):  # type: ignore[arg-type]
        with pytest.raises(ControlError, match="Use linear or spherical"):
            make()


@pytest.mark.parametrize(
    ("length", "unit"), [(0, "seconds"), (-1, "frames"), (nan, "seconds"), (2.5, "frames"), ("2", "seconds"), (2, "h")]
)
def test_what_is_no_transition_is_refused(length: Any, unit: Any) -> None:
    with pytest.raises(ControlError, match="Use "):
        Transition(length, unit)


def test_a_transition_counts_frames_or_seconds() -> None:
    assert Transition(4, "frames").fraction(1, Fraction(100)) == 0.25
    assert Transition(4).fraction(100, Fraction(3)) == 0.75
    assert Transition(0.5).fraction(0, Fraction(1, 10)) == pytest.approx(0.2)
