"""The ring's memory: one allocation, and every write goes to its slot and nowhere else, bit by bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from live2diff_trt.bundle.spec import FloatName, KvCacheSpec, StreamSpec
from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing

WINDOW, SINK, ROWS = 7, 3, 3
CACHES = (KvCacheSpec("down", 4, 2, 3), KvCacheSpec("up", 2, 1, 2))
Cell = tuple[str, int, int, int]  # place, 0 for k and 1 for v, row, slot


def make_spec(dtype: FloatName = "float32") -> StreamSpec:
    return StreamSpec(
        width=64,
        height=64,
        step_list=(10, 20, 30),
        dtype=dtype,
        heads=2,
        kv_caches=CACHES,
        time_projections=(),
        prompt_kvs=(),
        prompt_tokens=7,
        text_channels=4,
        depth_channels=4,
        depth_size=0,
        window=WINDOW,
        sink=SINK,
    )


def random_values(frames: int, seed: int) -> KeyValues:
    """New keys and values of every place, each [frames, positions, channels]."""
    generator = np.random.default_rng(seed)

    def draw(cache: KvCacheSpec) -> Array:
        return generator.standard_normal((frames, cache.positions, cache.channels)).astype(np.float32)

    return {cache.name: (draw(cache), draw(cache)) for cache in CACHES}


def read_cells(ring: KvRing) -> dict[Cell, bytes]:
    """Everything in the ring as bytes, so that NaNs compare too."""
    return {
        (place, side, row, slot): views[side][row, slot].tobytes()
        for place, views in ring.past.items()
        for side in (0, 1)
        for row in range(ROWS)
        for slot in range(WINDOW)
    }


def poisoned_ring() -> KvRing:
    ring = KvRing(make_spec())
    for views in ring.past.values():
        for view in views:
            view[:] = np.nan
    return ring


def changed_cells(before: dict[Cell, bytes], after: dict[Cell, bytes]) -> set[Cell]:
    return {cell for cell in before if before[cell] != after[cell]}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_view_has_its_shape_and_is_contiguous(dtype: FloatName) -> None:
    ring = KvRing(make_spec(dtype))
    assert list(ring.past) == ["down", "up"]
    for cache in CACHES:
        for view in ring.past[cache.name]:
            assert view.shape == (ROWS, WINDOW, cache.positions, cache.channels)
            assert view.dtype == np.dtype(dtype)
            assert view.flags.c_contiguous
            assert not view.any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_all_views_lie_side_by_side_in_one_allocation(dtype: FloatName) -> None:
    spec = make_spec(dtype)
    ring = KvRing(spec)
    views = [view for pair in ring.past.values() for view in pair]
    starts = [view.__array_interface__["data"][0] for view in views]
    for (start, view), (next_start, _) in pairwise(zip(starts, views, strict=True)):
        assert start + view.nbytes == next_start
    assert sum(view.nbytes for view in views) == spec.cache_bytes == ring._memory.nbytes
    assert all(np.shares_memory(view, ring._memory) for view in views)
    assert not any(np.shares_memory(one, other) for one, other in pairwise(views))


def test_filling_a_sink_touches_that_rows_sink_alone() -> None:
    ring = poisoned_ring()
    before, new = read_cells(ring), random_values(SINK, seed=1)
    ring.fill_sink(1, new)
    after = read_cells(ring)
    assert changed_cells(before, after) == {
        (place, side, 1, slot) for place in ("down", "up") for side in (0, 1) for slot in range(SINK)
    }
    for place, values in new.items():
        for side in (0, 1):
            np.testing.assert_array_equal(ring.past[place][side][1, :SINK], values[side])


@pytest.mark.parametrize(
    "active", [[True, True, True], [True, False, False], [False, True, False], [True, False, True]]
)
def test_a_write_touches_one_slot_of_every_active_row(active: list[bool]) -> None:
    ring = poisoned_ring()
    for seed in range(6):  # the rolling part has 4 slots, so they wrap round
        before, slots, new = read_cells(ring), ring.view().write_slot, random_values(ROWS, seed)
        ring.write(new, active)
        after = read_cells(ring)
        assert changed_cells(before, after) == {
            (place, side, row, int(slots[row]))
            for place in ("down", "up")
            for side in (0, 1)
            for row in range(ROWS)
            if active[row]
        }
        for place, values in new.items():
            for side in (0, 1):
                for row in np.flatnonzero(active):
                    np.testing.assert_array_equal(ring.past[place][side][row, slots[row]], values[side][row])


def test_a_row_without_a_frame_leaves_no_trace_even_of_nan() -> None:
    ring = KvRing(make_spec())
    new = random_values(ROWS, seed=0)
    for values in new.values():
        for side in values:
            side[1] = np.nan
    position = ring.view().position[1]
    ring.write(new, [True, False, True])
    assert all(np.isfinite(view).all() for pair in ring.past.values() for view in pair)
    assert ring.view().position[1] == position


def test_a_write_moves_only_the_active_rows_on() -> None:
    ring = KvRing(make_spec())
    ring.write(random_values(ROWS, 0), [True, False, True])
    ring.write(random_values(ROWS, 1), [True, False, False])
    assert ring.view().position.tolist() == [SINK + 2, SINK, SINK + 1]
    assert ring.view().write_slot.tolist() == [SINK + 2, SINK, SINK + 1]


def test_views_stay_valid_and_follow_the_ring() -> None:
    ring = KvRing(make_spec())
    keys, _ = ring.past["down"]
    new = random_values(ROWS, seed=3)
    ring.write(new, [True] * ROWS)
    np.testing.assert_array_equal(keys[:, SINK], new["down"][0])


def test_the_ring_keeps_no_hold_of_what_it_was_given() -> None:
    ring = KvRing(make_spec())
    new = random_values(ROWS, seed=4)
    ring.write(new, [True] * ROWS)
    before = read_cells(ring)
    for values in new.values():
        for side in values:
            side[:] = 9
    assert read_cells(ring) == before


def test_reset_forgets_every_streamed_frame() -> None:
    ring, fresh = KvRing(make_spec()), KvRing(make_spec())
    for seed in range(5):
        ring.write(random_values(ROWS, seed), [True, seed > 0, seed > 1])
    ring.reset()
    for name in ("position", "past_position", "visible", "write_slot"):
        np.testing.assert_array_equal(getattr(ring.view(), name), getattr(fresh.view(), name))


class RingAgainstDict(RuleBasedStateMachine):
    """Any order of calls: the ring holds what a dictionary of cells holds."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = KvRing(make_spec())
        self.cells = read_cells(self.ring)
        self.counts = [0] * ROWS
        self.filled: set[int] = set()  # rows whose sink was filled since the last reset
        self.frames_written = 0

    def new_values(self, frames: int) -> KeyValues:
        self.frames_written += 1
        return random_values(frames, self.frames_written)

    @rule(row=st.integers(0, ROWS - 1))
    def fill_sink(self, row: int) -> None:
        new = self.new_values(SINK)
        self.ring.fill_sink(row, new)
        self.filled.add(row)
        for place, values in new.items():
            for side in (0, 1):
                for slot in range(SINK):
                    self.cells[place, side, row, slot] = values[side][slot].tobytes()

    @rule(active=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS))
    def write(self, active: list[bool]) -> None:
        new = self.new_values(ROWS)
        self.ring.write(new, active)
        for row in range(ROWS):
            if active[row]:
                for place, values in new.items():
                    for side in (0, 1):
                        slot = SINK + self.counts[row] % (WINDOW - SINK)
                        self.cells[place, side, row, slot] = values[side][row].tobytes()
                self.counts[row] += 1

    @rule()
    def reset(self) -> None:
        self.ring.reset()
        self.counts = [0] * ROWS
        self.filled.clear()

    @invariant()
    def slots_that_can_be_seen_hold_what_was_written(self) -> None:
        visible = self.ring.view().visible
        found = read_cells(self.ring)
        seen = [
            (place, side, row, slot)
            for place, side, row, slot in found
            if visible[row, slot] and (slot >= SINK or row in self.filled)
        ]
        assert {cell: found[cell] for cell in seen} == {cell: self.cells[cell] for cell in seen}

    @invariant()
    def the_next_slot_follows_the_count(self) -> None:
        slots = [SINK + count % (WINDOW - SINK) for count in self.counts]
        assert self.ring.view().write_slot.tolist() == slots


RingAgainstDict.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestRingAgainstDict = RingAgainstDict.TestCase
