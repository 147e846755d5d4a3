"""Random inputs are as like real ones as a graph needs them to be."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff_trt.engine.random_inputs import random_input


def make(name: str, *shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return random_input(name, shape, dtype, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("name", "bound"), [("timesteps", 1000), ("position", 16), ("past_position", 16), ("token_ids", 256)]
)
def test_integers_use_their_range(name: str, bound: int) -> None:
    values = make(name, 20_000, dtype="int32")
    assert values.dtype == np.int32
    assert (values.min(), values.max()) == (0, bound - 1)


def test_a_mask_hides_runs_of_slots_and_never_the_first() -> None:
    bias = make("past_bias", 500, 16, dtype="float16")
    assert bias.dtype == np.float16
    assert set(np.unique(bias)) == {-np.inf, 0}
    assert not bias[:, 0].any()
    hidden = bias != 0
    assert ((hidden[:, 1:] & ~hidden[:, :-1]).sum(axis=1) <= 1).all()
    assert hidden.sum(axis=1).min() == 0
    assert hidden.sum(axis=1).max() == 15


@pytest.mark.parametrize("name", ["image", "depth_image"])
def test_pictures_fill_their_range(name: str) -> None:
    values = make(name, 1, 3, 64, 64)
    assert -1 <= values.min() < -0.99
    assert 0.99 < values.max() <= 1


def test_everything_else_is_normal_and_repeats_by_its_seed() -> None:
    values = make("sample", 2, 4, 32, 32)
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05
    assert np.array_equal(values, make("sample", 2, 4, 32, 32))
    assert not np.array_equal(values, make("sample", 2, 4, 32, 32, seed=1))
