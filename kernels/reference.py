"""The kernels in numpy: what every GPU kernel must equal, and what the CPU runs.

All of them compute in float32 (or in float64, if that is what they are given) and return it; the caller rounds to the
stream's dtype. Shapes stand beside the signatures.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]


def preprocess(image: NDArray[np.uint8], width: int, height: int) -> Float:
    """Crop, resize and scale a picture: uint8 [any height, any width, 3] → float32 [3, height, width] in [−1, 1].

    The policy is *cover*: the largest centred rectangle of the target's aspect ratio is kept, the rest is cropped. It
    is resized by an antialiased triangle filter, which is plain bilinear interpolation where the picture grows.
    """
    left, top, kept_width, kept_height = cover_rectangle(image.shape[1], image.shape[0], width, height)
    kept = image[top : top + kept_height, left : left + kept_width].astype(np.float32)
    if (kept_width, kept_height) != (width, height):
        kept = _resize_rows(kept, height)
        kept = _resize_rows(kept.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return np.ascontiguousarray(kept.transpose(2, 0, 1)) / np.float32(127.5) - np.float32(1)


def cover_rectangle(from_width: int, from_height: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of the largest centred rectangle with the aspect ratio of width x height."""
    kept_width = min(from_width, max(1, round(from_height * width / height)))
    kept_height = min(from_height, max(1, round(from_width * height / width)))
    return (from_width - kept_width) // 2, (from_height - kept_height) // 2, kept_width, kept_height


def _resize_rows(picture: Float, rows: int) -> Float:
    """Resize [any rows, columns, 3] to [rows, columns, 3] by an antialiased triangle filter."""
    source, weights = _triangle_taps(picture.shape[0], rows)
    resized = np.zeros((rows, *picture.shape[1:]), picture.dtype)
    for tap in range(weights.shape[1]):
        resized += weights[:, tap, None, None] * picture[source[:, tap]]
    return resized


@lru_cache(maxsize=16)
def _triangle_taps(from_size: int, to_size: int) -> tuple[NDArray[np.intp], Float]:
    """Return which source each output reads, and how much of it: both [to_size, taps]; weights sum to 1."""
    scale = from_size / to_size
    reach = max(scale, 1.0)
    centres = (np.arange(to_size) + 0.5) * scale - 0.5
    source = np.ceil(centres - reach).astype(np.intp)[:, None] + np.arange(int(2 * reach) + 1)
    inside = (source >= 0) & (source < from_size)
    weights = np.where(inside, np.maximum(0.0, 1.0 - np.abs(source - centres[:, None]) / reach), 0.0)
    normalised = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(source, 0, from_size - 1), normalised.astype(np.float32)


def resize_bilinear(planes: Float, width: int, height: int) -> Float:
    """Resize [..., any height, any width] to [..., height, width]: bilinear, align_corners false, no antialias."""
    top, bottom, down = _bilinear_taps(planes.shape[-2], height)
    left, right, across = _bilinear_taps(planes.shape[-1], width)
    rows = planes[..., top, :] * (1 - down)[:, None] + planes[..., bottom, :] * down[:, None]
    return rows[..., left] * (1 - across) + rows[..., right] * across


@lru_cache(maxsize=16)
def _bilinear_taps(from_size: int, to_size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Float]:
    source = np.clip((np.arange(to_size) + 0.5) * (from_size / to_size) - 0.5, 0, None)
    low = np.minimum(source.astype(np.intp), from_size - 1)
    high = np.minimum(low + 1, from_size - 1)
    return low, high, (source - low).astype(np.float32)


def depth_normalise(depth_maps: Float) -> Float:
    """Scale depth maps, [frames, height, width], together to [−1, 1]; flat ones become 0 everywhere."""
    low, high = depth_maps.min(), depth_maps.max()
    if not high > low:
        return np.zeros_like(depth_maps)
    return (depth_maps - low) / (high - low) * 2 - 1


def enter(latent: Float, noise: Float, sqrt_alpha: float, sqrt_one_minus_alpha: float) -> Float:
    """Noise a latent to a timestep (DDPM, arXiv 2006.11239, eq. 4): any shape, all alike."""
    return sqrt_alpha * latent + sqrt_one_minus_alpha * noise


def lcm_step(
    sample: Float,  # [rows, channels, height, width]
    model_output: Float,  # alike
    sqrt_alpha: Float,  # [rows], and the others
    sqrt_one_minus_alpha: Float,
    c_skip: Float,
    c_out: Float,
) -> Float:
    """Predict every row's clean latent (LCM, arXiv 2310.04378, eq. 9): x0 of the sample's shape."""

    def per_row(values: Float) -> Float:
        return values[:, None, None, None]

    predicted = (sample - per_row(sqrt_one_minus_alpha) * model_output) / per_row(sqrt_alpha)
    return per_row(c_out) * predicted + per_row(c_skip) * sample


def postprocess(image: Float) -> NDArray[np.uint8]:
    """Turn [3, height, width], roughly in [−1, 1], into uint8 [height, width, 3]; ties round to even."""
    pixels = np.rint((np.clip(image.astype(np.float32, copy=False), -1, 1) / 2 + 0.5) * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def streaming_attention(
    q: Float,  # [rows, positions, channels], k and v alike
    k: Float,
    v: Float,
    past_k: Float,  # [rows, window, positions, channels], past_v alike
    past_v: Float,
    tables: tuple[Float, Float, Float],  # W·pe for q, k and v, each [window, channels]
    position: NDArray[np.integer[Any]],  # [rows]
    past_position: NDArray[np.integer[Any]],  # [rows, window]
    past_bias: Float,  # [rows, window], 0 or −inf
    heads: int,
) -> Float:
    """Let each row's frame attend to its cached past and to itself: [rows, positions, channels]."""
    pe_q, pe_k, pe_v = tables
    here_q = q + pe_q[position][:, None]
    keys = np.concatenate([past_k + pe_k[past_position][:, :, None], (k + pe_k[position][:, None])[:, None]], axis=1)
    values = np.concatenate([past_v + pe_v[past_position][:, :, None], (v + pe_v[position][:, None])[:, None]], axis=1)
    bias = np.pad(past_bias, ((0, 0), (0, 1)))[:, :, None, None]
    q_heads, k_heads, v_heads = (_split_heads(tensor, heads) for tensor in (here_q[:, None], keys, values))
    scores = (q_heads * k_heads).sum(-1) / math.sqrt(k_heads.shape[-1]) + bias  # [rows, window + 1, positions, heads]
    out: Float = (_softmax(scores, axis=1)[..., None] * v_heads).sum(1)
    return out.reshape(q.shape)


def warm_up_attention(q: Float, k: Float, v: Float, tables: tuple[Float, Float, Float], heads: int) -> Float:
    """Let the warm-up frames attend to each other in both directions: all [frames, positions, channels]."""
    q_heads, k_heads, v_heads = (
        _split_heads(tensor + table[: len(q), None], heads) for tensor, table in zip((q, k, v), tables, strict=True)
    )
    scores = np.einsum("fphc,gphc->fgph", q_heads, k_heads) / math.sqrt(q_heads.shape[-1])
    out: Float = np.einsum("fgph,gphc->fphc", _softmax(scores, axis=1), v_heads)
    return out.reshape(q.shape)


def spatial_attention(
    q: Float,  # [rows, positions, channels]
    k: Float,  # [rows that repeat, tokens, channels], v alike
    v: Float,
    heads: int,
) -> Float:
    """Let each position of each row attend to all tokens: [rows, positions, channels]."""
    repeat = np.arange(len(q)) % len(k)
    q_heads, k_heads, v_heads = (_split_heads(tensor, heads) for tensor in (q, k, v))
    out = np.empty(q_heads.shape, q.dtype)
    for row, key_row in enumerate(repeat):  # one at a time: scores of all rows take too much memory
        for head in range(heads):
            scores = q_heads[row, :, head] @ k_heads[key_row, :, head].T / math.sqrt(q_heads.shape[-1])
            out[row, :, head] = _softmax(scores, axis=1) @ v_heads[key_row, :, head]
    return out.reshape(q.shape)


def group_norm(
    x: Float,  # [rows, positions, channels]
    scale: Float,  # [channels], bias alike
    bias: Float,
    row_bias: Float | None,  # [rows that repeat, channels]: added to x first
    groups: int,
    epsilon: float,
    silu: bool,
) -> Float:
    """Normalise every group of channels over a row's positions (arXiv 1803.08494), then SiLU: of x's shape."""
    rows, positions, _ = x.shape
    if row_bias is not None:
        x = x + row_bias[np.arange(rows) % len(row_bias)][:, None]
    grouped = x.reshape(rows, positions, groups, -1)
    # In two passes, and around the first value: what does not vary is 0 to the last digit.
    centred = grouped - grouped[:, :1, :, :1]
    centred = centred - centred.mean(axis=(1, 3), keepdims=True)
    variance = np.square(centred).mean(axis=(1, 3), keepdims=True)
    normalised: Float = (centred / np.sqrt(variance + epsilon)).reshape(x.shape) * scale + bias
    return normalised * _sigmoid(normalised) if silu else normalised


def gated_gelu(x: Float) -> Float:
    """Multiply the first half of the channels by GELU of the second (arXiv 2002.05202): [..., 2 width] → [..., width].

    GELU is the exact one, by erf.
    """
    gated, gate = np.split(x, 2, axis=-1)
    return gated * gate * _normal_distribution(gate)


def _sigmoid(x: Float) -> Float:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _normal_distribution(x: Float) -> Float:
    """Return how much of a standard normal variable lies below x."""
    below: Float = _ERFC(x * -math.sqrt(0.5)).astype(x.dtype) / 2
    return below


_ERFC = np.vectorize(math.erfc, otypes=[np.float64])


def _split_heads(tensor: Float, heads: int) -> Float:
    return tensor.reshape(*tensor.shape[:-1], heads, -1)


def _softmax(scores: Float, axis: int) -> Float:
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)
