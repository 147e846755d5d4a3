"""The noise of a stream: Philox4x32-10 (Salmon et al., SC 2011) and Box–Muller, the same on every backend.

A draw depends on the seed, the frame, the denoising step and its purpose alone. It does not depend on the tick, so a
flushed, skipped or chunked frame gets the noise it would have got anyway.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
_ROUNDS = 10


class Purpose(IntEnum):
    """What a draw is for: the last word of the Philox counter."""

    ENTER = 0
    RENOISE = 1
    WARM_UP = 2
    SKIP = 3


def philox_words(blocks: int, seed: int, frame: int, step: int, purpose: Purpose) -> NDArray[np.uint32]:
    """Return Philox4x32-10 output, [blocks, 4] uint32.

    The key is the 64-bit seed; the counter of block b is (b, frame, step, purpose).
    """
    counter = np.empty((4, blocks), np.uint64)
    counter[0] = np.arange(blocks, dtype=np.uint64)
    counter[1] = frame & 0xFFFFFFFF
    counter[2] = step
    counter[3] = int(purpose)
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(_ROUNDS):
        counter = _philox_round(counter, key)
        key = [(word + step_of_key) & 0xFFFFFFFF for word, step_of_key in zip(key, _KEY_STEPS, strict=True)]
    return np.ascontiguousarray(counter.T.astype(np.uint32))


def _philox_round(counter: NDArray[np.uint64], key: list[int]) -> NDArray[np.uint64]:
    first = counter[0] * _MULTIPLIERS[0]
    second = counter[2] * _MULTIPLIERS[1]
    return np.stack(
        [
            (second >> _WORD_BITS) ^ counter[1] ^ np.uint64(key[0]),
            second & _LOW_WORD,
            (first >> _WORD_BITS) ^ counter[3] ^ np.uint64(key[1]),
            first & _LOW_WORD,
        ]
    )


def standard_normal(shape: tuple[int, ...], seed: int, frame: int, step: int, purpose: Purpose) -> NDArray[np.float32]:
    """Draw standard normals of ``shape``, float32, element e from Philox block e // 4.

    A word w becomes the uniform ((w >> 9) + 0.5) / 2²³, exact in float32 and never 0 or 1. Words 0 and 1 give
    elements 0 and 1 of a block (cosine, then sine), words 2 and 3 elements 2 and 3. Computed in float64.
    """
    count = int(np.prod(shape))
    words = philox_words(-(-count // 4), seed, frame, step, purpose).reshape(-1, 2)
    uniform = ((words >> np.uint32(9)).astype(np.float64) + 0.5) / (1 << 23)
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0]))
    angle = 2.0 * np.pi * uniform[:, 1]
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normals.reshape(-1)[:count].reshape(shape).astype(np.float32)
