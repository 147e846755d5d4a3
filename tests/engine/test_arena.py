"""The arena: what is alive together lies apart, and little is wasted."""

from __future__ import annotations

import json
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.engine.arena import (
    Arena,
    Lifetime,
    arena_of,
    chunk_stride_bytes,
    lifetimes_of,
    peak_bytes,
    plan_arena,
)
from live2diff_trt.engine.split import CrossingTensor, Segment, TemporalAttentionCut, UNetSplit


@st.composite
def sets_of_lifetimes(draw: st.DrawFn) -> list[Lifetime]:
    intervals = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(1, 3000)), max_size=25))
    return [
        Lifetime(f"tensor_{index}", size, first, first + length)
        for index, (first, length, size) in enumerate(intervals)
    ]


@given(sets_of_lifetimes(), st.sampled_from([1, 16, 256]))
def test_what_is_alive_together_lies_apart(lifetimes: list[Lifetime], alignment: int) -> None:
    arena = plan_arena(lifetimes, alignment)
    assert list(arena.offsets) == [lifetime.name for lifetime in lifetimes]
    assert all(offset >= 0 and offset % alignment == 0 for offset in arena.offsets.values())
    assert all(arena.offsets[lifetime.name] + lifetime.bytes <= arena.bytes for lifetime in lifetimes)
    for one, other in combinations(lifetimes, 2):
        if set(range(one.first, one.last + 1)) & set(range(other.first, other.last + 1)):
            start, other_start = arena.offsets[one.name], arena.offsets[other.name]
            assert start + one.bytes <= other_start or other_start + other.bytes <= start


@given(sets_of_lifetimes())
def test_an_arena_is_no_smaller_than_its_peak_and_no_larger_than_everything(lifetimes: list[Lifetime]) -> None:
    steps = range(20)
    peak = max(sum(one.bytes for one in lifetimes if one.first <= step <= one.last) for step in steps)
    assert peak_bytes(lifetimes) == peak
    assert peak <= plan_arena(lifetimes, 1).bytes <= sum(lifetime.bytes for lifetime in lifetimes)


@given(sets_of_lifetimes(), st.randoms(use_true_random=False))
def test_the_order_of_the_tensors_does_not_matter(lifetimes: list[Lifetime], random: Random) -> None:
    shuffled = list(lifetimes)
    random.shuffle(shuffled)
    assert plan_arena(shuffled) == plan_arena(lifetimes)


def test_bytes_are_shared_only_after_the_last_step() -> None:
    lifetimes = [Lifetime("a", 512, 0, 2), Lifetime("b", 512, 2, 3), Lifetime("c", 512, 3, 4)]
    assert plan_arena(lifetimes) == Arena({"a": 0, "b": 512, "c": 0}, 1024)


def test_the_smallest_gap_that_fits_is_taken() -> None:
    first_step = [Lifetime("wide", 1000, 0, 0), Lifetime("narrow", 800, 0, 0)]
    walls = [Lifetime("wall_0", 900, 0, 9), Lifetime("wall_1", 700, 0, 9)]
    later = [Lifetime("fits_both", 600, 5, 5), Lifetime("fits_what_is_left", 550, 5, 5)]
    arena = plan_arena([*first_step, *walls, *later], 1)
    assert [arena.offsets[one.name] for one in [*first_step, *walls]] == [0, 1900, 1000, 2700]
    assert [arena.offsets[one.name] for one in later] == [1900, 0]


def test_an_arena_of_nothing_is_empty() -> None:
    assert plan_arena([]) == Arena({}, 0)
    assert peak_bytes([]) == 0


def test_an_arena_goes_through_json() -> None:
    arena = plan_arena([Lifetime("a", 5, 0, 1), Lifetime("b", 300, 1, 2)])
    assert Arena.from_json(json.loads(json.dumps(arena.to_json()))) == arena


# the split form


@pytest.fixture
def split() -> UNetSplit:
    """Two segments; 3 positions of 40 channels in half precision: no multiple of 256 bytes."""
    cut = TemporalAttentionCut("place", "q", "k", "v", "out", ("pe_q", "pe_k", "pe_v"))
    parts = [
        CrossingTensor(name, (3, 40), "float16", 0, 1, packed_in="qkv", part=part) for part, name in enumerate("qkv")
    ]
    return UNetSplit(
        (Segment("segment_00", ("sample",), ("qkv", "tokens")), Segment("segment_01", ("tokens", "out"), ("end",))),
        (cut,),
        (
            CrossingTensor("qkv", (3, 3, 40), "float16", 0, 1),
            *parts,
            CrossingTensor("tokens", (3, 40), "float16", 0, 2),
            CrossingTensor("out", (3, 40), "float16", 1, 2),
            CrossingTensor("end", (4, 2, 2), "float16", 2, 2),
        ),
    )


def test_chunks_begin_aligned_and_parts_lie_in_their_whole(split: UNetSplit) -> None:
    row_bytes = 3 * 40 * 2
    arena = arena_of(split, rows_per_chunk=2, chunks=4)
    assert chunk_stride_bytes(split.tensor("tokens"), 2) == 512  # 480 rounded up
    assert {chunk_stride_bytes(split.tensor(name), 2) for name in ("qkv", "q", "k", "v")} == {1536}  # 1440 rounded up
    start = arena.offsets["qkv"]
    assert [arena.offsets[name] - start for name in ("q", "k", "v")] == [0, 2 * row_bytes, 4 * row_bytes]
    assert arena.bytes == 4 * (1536 + 512 + 512)
    assert set(arena.offsets) == {tensor.name for tensor in split.tensors}


def test_parts_take_no_bytes_of_their_own(split: UNetSplit) -> None:
    assert [lifetime.name for lifetime in lifetimes_of(split, 2, 4)] == ["qkv", "tokens", "out", "end"]


# the full size


def full_size_lifetimes(channels: tuple[int, ...], layers: int, side: int) -> list[Lifetime]:
    """What crosses in a network of these channels at latents of ``side`` x ``side``, in half precision, one row."""
    lifetimes: list[Lifetime] = []
    skips: list[tuple[int, int]] = []  # bytes, step
    step = 0

    def live(size: int, first: int, last: int) -> None:
        lifetimes.append(Lifetime(f"tensor_{len(lifetimes)}", size, first, last))

    def cross_motion_module(size: int, step: int) -> int:
        live(size, step, step + 4)  # its input
        for begin in (step, step + 2):
            live(size, begin, begin + 2)  # tokens
            live(3 * size, begin, begin + 1)  # q, k and v
            live(size, begin + 1, begin + 2)  # the attention's output
        return step + 4

    sizes = [2 * width * (side >> level) ** 2 for level, width in enumerate(channels)]
    skips.append((sizes[0], 0))
    for level, size in enumerate(sizes):
        for _ in range(layers):
            step = cross_motion_module(size, step)
            skips.append((size, step))
        if level < len(sizes) - 1:
            skips.append((size // 4, step))
    for size in reversed(sizes):
        for _ in range(layers + 1):
            skip, written = skips.pop()
            if written < step:
                live(skip, written, step)
            step = cross_motion_module(size, step)
    assert not skips
    return lifetimes


def test_the_full_size_is_packed_tightly() -> None:
    """Stable Diffusion 1.5 at 512x512: no more than what is alive at once, and far below everything."""
    lifetimes = full_size_lifetimes((320, 640, 1280, 1280), layers=2, side=64)
    arena = plan_arena(lifetimes).bytes
    assert len(lifetimes) == 20 * 7 + 12 - 1
    assert arena == peak_bytes(lifetimes)
    assert arena < sum(lifetime.bytes for lifetime in lifetimes) / 10
