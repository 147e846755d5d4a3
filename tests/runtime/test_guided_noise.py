"""The mathematics of guidance, against values computed by hand and against what it must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from live2diff_trt.kernels import reference
from live2diff_trt.runtime.guided_noise import guided_noise, implied_latent, virtual_noise

SHAPE = (3, 4, 2, 5)


def draw(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(SHAPE)


def test_by_hand() -> None:
    """s = 1.5 and δ = 0.5: 0.5·4 + 1.5·(6 − 0.5·4) = 8; without δ: 4 + 1.5·(6 − 4) = 7."""
    positive, negative = np.full(SHAPE, 6.0), np.full(SHAPE, 4.0)
    np.testing.assert_array_equal(guided_noise(positive, negative, 1.5, 0.5), 8)
    np.testing.assert_array_equal(guided_noise(positive, negative, 1.5), 7)


def test_virtual_noise_by_hand() -> None:
    """Rows of (√ā, √(1 − ā)) = (0.6, 0.8) and (0.8, 0.6): (5 − 0.6·2) / 0.8 = 4.75, (5 − 0.8·2) / 0.6 = 17 / 3."""
    sample, origin = np.full((2, 1, 1, 1), 5.0), np.full((2, 1, 1, 1), 2.0)
    noise = virtual_noise(sample, origin, np.array([0.6, 0.8]), np.array([0.8, 0.6]))
    np.testing.assert_allclose(noise.ravel(), [4.75, 17 / 3], rtol=1e-15)


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_a_scale_of_one_is_the_prompts_noise(delta: float) -> None:
    np.testing.assert_allclose(guided_noise(draw(0), draw(1), 1, delta), draw(0), atol=1e-15)


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_a_scale_of_zero_is_what_is_believed_of_the_negative_noise(delta: float) -> None:
    np.testing.assert_array_equal(guided_noise(draw(0), draw(1), 0, delta), delta * draw(1))


def test_delta_scales_the_negative_noise_and_nothing_else() -> None:
    for scale in (0.5, 1.4, 7.5):
        by_delta = guided_noise(draw(0), draw(1), scale, 0.3)
        np.testing.assert_array_equal(by_delta, guided_noise(draw(0), 0.3 * draw(1), scale))
        np.testing.assert_allclose(guided_noise(draw(0), draw(1), scale, 0), scale * draw(0), rtol=1e-15)


def test_guidance_is_linear_in_its_scale() -> None:
    at = [guided_noise(draw(0), draw(1), scale, 0.8) for scale in (0.0, 1.5, 3.0)]
    np.testing.assert_allclose(at[1] - at[0], at[2] - at[1], atol=1e-14)


def test_virtual_noise_leads_back_to_the_origin() -> None:
    sqrt_alpha = np.array([0.3, 0.6, 0.9])
    levels = sqrt_alpha, np.sqrt(1 - sqrt_alpha**2)
    noise = virtual_noise(draw(0), draw(1), *levels)
    x0 = reference.lcm_step(draw(0), noise, *levels, np.zeros(3), np.ones(3))
    np.testing.assert_allclose(x0, draw(1), atol=1e-14)


def test_of_a_frame_that_just_came_the_virtual_noise_is_the_noise_it_got() -> None:
    latent, noise = draw(0), draw(1)
    sqrt_alpha = np.array([0.3, 0.6, 0.9])
    levels = sqrt_alpha, np.sqrt(1 - sqrt_alpha**2)
    rows = [reference.enter(latent[row], noise[row], levels[0][row], levels[1][row]) for row in range(3)]
    np.testing.assert_allclose(virtual_noise(np.stack(rows), latent, *levels), noise, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept(dtype: Any) -> None:
    one, other = draw(0).astype(dtype), draw(1).astype(dtype)
    levels = np.array([0.3, 0.6, 0.9], dtype), np.array([0.9, 0.8, 0.4], dtype)
    assert guided_noise(one, virtual_noise(one, other, *levels), 1.4, 0.5).dtype == dtype


def test_an_implied_latent_by_hand() -> None:
    """(5 − 0.8·2) / 0.6 = 17 / 3."""
    sample, noise = np.full((1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1), 2.0)
    np.testing.assert_allclose(implied_latent(sample, noise, np.array([0.6]), np.array([0.8])).ravel(), [17 / 3])


def test_an_implied_latent_as_the_origin_gives_the_noise_back() -> None:
    levels = np.array([0.3, 0.6, 0.9]), np.array([0.9, 0.8, 0.4])
    origin = implied_latent(draw(0), draw(1), *levels)
    np.testing.assert_allclose(virtual_noise(draw(0), origin, *levels), draw(1), atol=1e-14)
