"""Random inputs of any graph of a bundle, as like real ones as numbers without a meaning can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INTEGER_BOUNDS = {"timesteps": 1000, "position": 16, "past_position": 16, "token_ids": 256}
_PICTURES = ("image", "depth_image")
_HIDDEN = 0.3
"""Share of a window's slots."""


def random_input(name: str, shape: Sequence[int], dtype: str, generator: np.random.Generator) -> NDArray[Any]:
    """Return values for an input of that name.

    Integers stay within their range, a mask leaves the first slot of every window visible, pictures are in [−1, 1];
    everything else is normal with deviation 1.
    """
    if name in _INTEGER_BOUNDS:
        return generator.integers(0, _INTEGER_BOUNDS[name], shape).astype(dtype)
    if name == "past_bias":
        bias = np.where(generator.random(shape) < _HIDDEN, -np.inf, 0).astype(dtype)
        bias[..., 0] = 0
        return bias
    if name in _PICTURES:
        return generator.uniform(-1, 1, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
