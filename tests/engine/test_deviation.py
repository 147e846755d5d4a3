"""The measure of how far two tensors are apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from live2diff_trt.engine.deviation import deviation


def test_equal_tensors_do_not_deviate() -> None:
    tensor = np.random.default_rng(0).standard_normal((3, 4))
    assert deviation(tensor, tensor.copy()) == 0


def test_small_references_are_measured_absolutely() -> None:
    assert deviation(np.array([0.5, 0.25]), np.array([0.5, 0.125])) == 0.125


def test_large_references_are_measured_relative_to_their_largest() -> None:
    assert deviation(np.array([0.0, 11.0]), np.array([1.0, -10.0])) == pytest.approx(2.1)
    assert deviation(np.array([101.0, 1.0]), np.array([100.0, 1.0])) == pytest.approx(0.01)


def test_the_sign_does_not_matter() -> None:
    assert deviation(np.array([-0.5]), np.array([0.0])) == deviation(np.array([0.5]), np.array([0.0])) == 0.5


def test_halves_are_compared_without_overflow() -> None:
    big = np.array([60000.0], np.float16)
    assert deviation(-big, big) == 2


def test_a_small_difference_of_large_float32_is_not_lost() -> None:
    ours, reference = np.array([1.0], np.float32), np.array([1.0 + 1e-9], np.float64)
    assert deviation(ours, reference) == pytest.approx(1e-9, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_deviates_infinitely_on_either_side(value: float) -> None:
    broken, sound = np.array([0.0, value]), np.array([0.0, 1.0])
    assert deviation(broken, sound) == math.inf
    assert deviation(sound, broken) == math.inf
    with np.errstate(invalid="ignore"):
        assert deviation(broken, broken) == math.inf


def test_other_shapes_are_refused_even_if_they_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(3,\)"):
        deviation(np.zeros((1, 3)), np.zeros(3))
