"""Philox against its published vectors, and the normals made from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from live2diff_trt.bundle import noise
from live2diff_trt.bundle.noise import Purpose, philox_words, standard_normal

Words = tuple[int, int, int, int]
WORD = 0xFFFFFFFF
seeds = st.integers(0, 2**64 - 1)
words32 = st.integers(0, WORD)
purposes = st.sampled_from(Purpose)

# The first elements of two draws: every backend must give these.
FIRST_NORMALS = {
    (0, 0, 0, Purpose.ENTER): [0.99113750, -0.92466277, -0.61760908, -0.48206836, -0.15363818, 0.18082581],
    (0x0123456789ABCDEF, 5, 2, Purpose.RENOISE): [
        -0.08850209, -1.06961823, 0.93293238, -0.22984469, 1.62865174, -1.00123215,
    ],
}  # fmt: skip


def philox_slowly(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 of one counter in Python integers, written from the paper."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & WORD, (left >> 32) ^ c3 ^ k1, left & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def normals_slowly(words: Words) -> list[float]:
    """Box–Muller of one block in Python floats."""
    u = [((word >> 9) + 0.5) / 2**23 for word in words]
    pairs = [(math.sqrt(-2 * math.log(u[i])), 2 * math.pi * u[i + 1]) for i in (0, 2)]
    return [value for radius, angle in pairs for value in (radius * math.cos(angle), radius * math.sin(angle))]


def draw(
    count: int = 64, seed: int = 1, frame: int = 2, step: int = 1, purpose: Purpose = Purpose.ENTER
) -> list[float]:
    return standard_normal((count,), seed, frame, step, purpose).tolist()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((WORD, WORD, WORD, WORD), (WORD, WORD), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_both_philoxes_give_the_published_vectors(counter: Words, key: tuple[int, int], expected: Words) -> None:
    assert philox_slowly(counter, key) == expected
    words, round_key = np.array(counter, np.uint64)[:, None], list(key)
    for _ in range(10):
        words = noise._philox_round(words, round_key)
        round_key = [(word + step) & WORD for word, step in zip(round_key, (0x9E3779B9, 0xBB67AE85), strict=True)]
    assert tuple(words[:, 0].tolist()) == expected


def test_counter_and_key_zero_give_the_published_vector() -> None:
    words = philox_words(1, seed=0, frame=0, step=0, purpose=Purpose.ENTER)
    assert words.dtype == np.uint32
    assert words.tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]


@given(seeds, words32, words32, purposes, st.integers(1, 5))
def test_words_are_philox_of_block_frame_step_and_purpose(
    seed: int, frame: int, step: int, purpose: Purpose, blocks: int
) -> None:
    expected = [philox_slowly((b, frame, step, int(purpose)), (seed & WORD, seed >> 32)) for b in range(blocks)]
    assert [tuple(block) for block in philox_words(blocks, seed, frame, step, purpose).tolist()] == expected


@given(seeds, words32, st.integers(0, 7), purposes)
def test_normals_are_box_muller_of_the_words(seed: int, frame: int, step: int, purpose: Purpose) -> None:
    blocks = [philox_slowly((b, frame, step, int(purpose)), (seed & WORD, seed >> 32)) for b in range(2)]
    expected = [value for block in blocks for value in normals_slowly(block)]
    np.testing.assert_allclose(standard_normal((8,), seed, frame, step, purpose), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("drawn", FIRST_NORMALS)
def test_the_first_normals_never_change(drawn: tuple[int, int, int, Purpose]) -> None:
    np.testing.assert_allclose(standard_normal((6,), *drawn), FIRST_NORMALS[drawn], atol=2e-6, rtol=0)


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_longer_draw_begins_with_the_shorter_one(short: int, more: int) -> None:
    assert draw(short + more)[:short] == draw(short)


def test_the_shape_only_folds_the_numbers() -> None:
    folded = standard_normal((4, 2, 3), 1, 2, 1, Purpose.ENTER)
    assert folded.shape == (4, 2, 3)
    assert folded.dtype == np.float32
    assert folded.ravel().tolist() == draw(24)


@pytest.mark.parametrize(
    "other",
    [
        draw(seed=2),
        draw(seed=1 + 2**32),
        draw(seed=1 + 2**63),
        draw(frame=3),
        draw(frame=2 + 2**31),
        draw(step=2),
        draw(purpose=Purpose.RENOISE),
        draw(purpose=Purpose.WARM_UP),
    ],
    ids=["seed", "high word of the seed", "top bit of the seed", "frame", "high frame", "step", "re-noise", "warm-up"],
)
def test_whatever_identifies_a_draw_changes_all_of_it(other: list[float]) -> None:
    assert draw() == draw()
    assert not set(draw()) & set(other)


def test_the_normals_are_normal() -> None:
    values = standard_normal((200_000,), 7, 0, 0, Purpose.ENTER).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.02
    assert abs((values**3).mean()) < 0.03
    assert abs((values**4).mean() - 3) < 0.1
    assert abs((values[:-1] * values[1:]).mean()) < 0.01
    assert 0.0024 < (np.abs(values) > 3).mean() < 0.0030


@pytest.mark.parametrize("word", [0, WORD, 0x1FF, 0x80000000])
def test_extreme_words_give_finite_normals(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant_words(blocks: int, *_: object) -> NDArray[np.uint32]:
        return np.full((blocks, 4), word, np.uint32)

    monkeypatch.setattr(noise, "philox_words", constant_words)
    values = standard_normal((4,), 0, 0, 0, Purpose.ENTER)
    np.testing.assert_allclose(values, normals_slowly((word, word, word, word)), atol=2e-6, rtol=0)
    assert np.all(np.abs(values) < 6)
