"""Between text embeddings: the mathematics of blends and transitions, on host arrays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.prompt_blend import Interpolation

_PARALLEL = 1 - 1e-6
"""Beyond this cosine the arc is straight. Between opposite vectors there is no one arc: it goes straight, too."""


def blend_embeddings(parts: Iterable[tuple[Array, float]], interpolation: Interpolation) -> Array:
    """Blend text embeddings by their weights, which are above 0.

    Args:
        parts: embeddings, all of one shape [..., channels], and weights, of which only the ratios matter.
        interpolation: between the parts. The arc of more than two follows from their order: each is joined to what the
            ones before it gave, by its share of the weight so far.

    Returns:
        Float32, of the same shape. Of a single part, its very values.
    """
    (blend, total), *others = ((embeddings.astype(np.float32), weight) for embeddings, weight in parts)
    for embeddings, weight in others:
        total += weight
        blend = interpolate(blend, embeddings, weight / total, interpolation)
    return blend


def interpolate(start: Array, end: Array, fraction: float, interpolation: Interpolation) -> Array:
    """Return what lies between two text embeddings, float32 [..., channels]: the start at 0, the end at 1."""
    between = _interpolate_spherically if interpolation == "spherical" else _interpolate_linearly
    return between(start, end, np.float32(fraction))


def _interpolate_linearly(start: Array, end: Array, fraction: np.float32) -> Array:
    return (1 - fraction) * start + fraction * end


def _interpolate_spherically(start: Array, end: Array, fraction: np.float32) -> Array:
    """Turn each token's vector along the arc (Shoemake, SIGGRAPH 1985), and let its length change evenly."""
    (first, first_length), (second, second_length) = _directions(start), _directions(end)
    cosine = np.sum(first * second, axis=-1, keepdims=True)
    straight = (np.abs(cosine) > _PARALLEL) | (first_length * second_length == 0)
    angle = np.arccos(np.where(straight, np.float32(0), cosine))
    of_first, of_second = (np.sin(share * angle) / np.sin(angle) for share in (1 - fraction, fraction))
    arc = (of_first * first + of_second * second) * _interpolate_linearly(first_length, second_length, fraction)
    return np.where(straight, _interpolate_linearly(start, end, fraction), arc)


def _directions(vectors: Array) -> tuple[Array, Array]:
    """Return vectors of length 1, [..., channels], and the lengths that they had, [..., 1]; 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1), lengths
