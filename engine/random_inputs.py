"""Random inputs of any graph of a bundle, as like real ones as numbers without a meaning can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INTEGER_BOUNDS = {"timesteps": 1000, "position": 16, "past_position": 16, "token_ids": 256}
_PICTURES = ("image", "depth_image")


def random_input(name: str, shape: Sequence[int], dtype: str, generator: np.random.Generator) -> NDArray[Any]:
    """Return values for an input of that name.

    Integers stay within their range, a mask hides a run of slots of every window, as before a ring is full, but never
    the first; pictures are in [−1, 1]; everything else is normal with deviation 1.
    """
    if name in _INTEGER_BOUNDS:
        return generator.integers(0, _INTEGER_BOUNDS[name], shape).astype(dtype)
    if name == "past_bias":
        return _hide_runs(shape, generator).astype(dtype)
    if name in _PICTURES:
        return generator.uniform(-1, 1, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _hide_runs(shape: Sequence[int], generator: np.random.Generator) -> NDArray[Any]:
    """Return a mask, [rows, window]."""
    rows, window = shape
    begins, ends = np.sort(generator.integers(1, window + 1, (2, rows, 1)), axis=0)
    slots = np.arange(window)
    return np.where((begins <= slots) & (slots < ends), -np.inf, 0.0)
