"""Between text embeddings: ends are the ends, lengths and angles are those of a line or an arc."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from live2diff_trt.runtime.embedding_blend import blend_embeddings, interpolate
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.prompt_blend import Interpolation

both = pytest.mark.parametrize("interpolation", ["linear", "spherical"])
values = st.floats(-30, 30, width=32)
embeddings = arrays(np.float32, (1, 3, 4), elements=values)


def draw(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((1, 7, 16)).astype(np.float32)


@both
@given(embeddings, embeddings)
def test_the_ends_are_the_ends(interpolation: Interpolation, start: Array, end: Array) -> None:
    np.testing.assert_allclose(interpolate(start, end, 0.0, interpolation), start, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(interpolate(start, end, 1.0, interpolation), end, rtol=1e-5, atol=1e-5)


@both
@given(embeddings, embeddings, st.floats(0, 1))
def test_nothing_is_ever_longer_than_the_longer_end(
    interpolation: Interpolation, start: Array, end: Array, fraction: float
) -> None:
    between = interpolate(start, end, fraction, interpolation)
    assert between.dtype == np.float32
    longest = np.maximum(*(np.linalg.norm(one, axis=-1) for one in (start, end)))
    assert (np.linalg.norm(between, axis=-1) <= longest * 1.001 + 1e-6).all()


def test_linear_is_the_mean() -> None:
    one, other = draw(1), draw(2)
    np.testing.assert_allclose(interpolate(one, other, 0.25, "linear"), 0.75 * one + 0.25 * other, rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_spherical_keeps_the_length_and_moves_by_the_angle(fraction: float) -> None:
    angle = 0.7 * pi
    start = np.array([[3.0, 0.0]], np.float32)
    end = 3 * np.array([[cos(angle), sin(angle)]], np.float32)
    wanted = 3 * np.array([[cos(fraction * angle), sin(fraction * angle)]])
    np.testing.assert_allclose(interpolate(start, end, fraction, "spherical"), wanted, atol=1e-6)


def test_each_token_has_an_arc_of_its_own() -> None:
    one, other = draw(1), draw(2)
    together = interpolate(one, other, 0.3, "spherical")
    alone = [interpolate(one[:, [t]], other[:, [t]], 0.3, "spherical") for t in range(7)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_where_there_is_no_arc_it_is_straight(factor: float) -> None:
    one = draw(1)
    np.testing.assert_allclose(
        interpolate(one, factor * one, 0.5, "spherical"), (1 + factor) / 2 * one, rtol=1e-4, atol=1e-6
    )


@both
def test_a_single_prompt_is_left_as_it_is(interpolation: Interpolation) -> None:
    half = draw(1).astype(np.float16)
    blend = blend_embeddings([(half, 0.3)], interpolation)
    assert blend.dtype == np.float32
    np.testing.assert_array_equal(blend.astype(np.float16), half)


def test_a_linear_blend_is_the_weighted_mean_in_any_order() -> None:
    parts = [(draw(seed), weight) for seed, weight in enumerate((1.0, 2.0, 5.0))]
    wanted = sum(weight / 8 * one for one, weight in parts)
    for order in (parts, parts[::-1]):
        np.testing.assert_allclose(blend_embeddings(order, "linear"), wanted, rtol=1e-4, atol=1e-6)


def test_a_spherical_blend_of_two_is_the_arc_between_them() -> None:
    one, other = draw(1), draw(2)
    np.testing.assert_allclose(
        blend_embeddings([(one, 1), (other, 3)], "spherical"), interpolate(one, other, 0.75, "spherical"), rtol=1e-6
    )
