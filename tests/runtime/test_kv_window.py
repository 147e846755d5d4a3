"""The window's arithmetic against a list of frames, and against the bookkeeping the reference recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.conformance.goldens import Goldens
from live2diff_trt.runtime.kv_window import KvWindow, WindowView

GOLDENS = Path(__file__).parents[1] / "goldens" / "tiny_a"

sizes = st.integers(2, 18).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window - 1)))
activities = st.integers(1, 4).flatmap(
    lambda rows: st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=1, max_size=40)
)


class SlowRow:
    """One row as lists: which frames came, and which slot each was last written to."""

    def __init__(self, window: int, sink: int) -> None:
        self.sink, self.rolling = sink, window - sink
        self.slots: list[int | None] = [None] * window
        self.frames: list[int] = []

    def check(self, view: WindowView, row: int) -> None:
        n = len(self.frames)
        position = self.sink + min(n, self.rolling - 1)
        assert view.position[row] == position
        seen = {slot: view.past_position[row, slot] for slot in range(len(self.slots)) if view.visible[row, slot]}
        assert [seen.pop(slot) for slot in range(self.sink)] == list(range(self.sink))
        remembered = self.frames[-(self.rolling - 1) :] if self.rolling > 1 else []
        assert {self.slots[slot]: at for slot, at in seen.items()} == {
            frame: position - age for age, frame in enumerate(reversed(remembered), start=1)
        }

    def write(self, slot: int) -> None:
        assert slot >= self.sink
        self.frames.append(len(self.frames))
        self.slots[slot] = self.frames[-1]


def same_rows(one: WindowView, other: WindowView, row: int, other_row: int) -> None:
    for name in ("position", "past_position", "visible", "write_slot"):
        np.testing.assert_array_equal(getattr(one, name)[row], getattr(other, name)[other_row], err_msg=name)


def run_staggered(window: KvWindow, rows: int, ticks: int) -> list[WindowView]:
    """Frame f reaches row i at tick f + i."""
    views = []
    for tick in range(ticks):
        views.append(window.view())
        window.advance([row <= tick for row in range(rows)])
    return views


@given(sizes, activities)
def test_every_row_sees_the_frames_that_a_list_of_frames_says(
    size: tuple[int, int], activity: list[list[bool]]
) -> None:
    window, sink = size
    rows = len(activity[0])
    ours, slow = KvWindow(rows, window, sink), [SlowRow(window, sink) for _ in range(rows)]
    for active in activity:
        view = ours.view()
        for row, is_active in enumerate(active):
            slow[row].check(view, row)
            if is_active:
                slow[row].write(view.write_slot[row])
        ours.advance(active)
    assert ours.counts.tolist() == [len(row.frames) for row in slow]


@given(sizes, activities)
def test_the_slot_to_write_is_hidden(size: tuple[int, int], activity: list[list[bool]]) -> None:
    ours = KvWindow(len(activity[0]), *size)
    for active in activity:
        view = ours.view()
        rows = np.arange(len(active))
        assert not view.visible[rows, view.write_slot].any()
        assert np.all(view.past_bias("float32")[rows, view.write_slot] == -np.inf)
        ours.advance(active)


@given(sizes, activities)
def test_positions_are_indices_into_the_tables(size: tuple[int, int], activity: list[list[bool]]) -> None:
    ours = KvWindow(len(activity[0]), *size)
    for active in activity:
        view = ours.view()
        for indices in (view.position, view.past_position, view.write_slot):
            assert indices.dtype == np.int32
            assert indices.min() >= 0
            assert indices.max() < size[0]
        hidden = np.where(view.visible, np.arange(size[0]), view.past_position)
        np.testing.assert_array_equal(hidden, np.broadcast_to(np.arange(size[0]), hidden.shape))
        ours.advance(active)


@given(sizes, activities)
def test_rows_are_independent_and_an_inactive_tick_leaves_no_trace(
    size: tuple[int, int], activity: list[list[bool]]
) -> None:
    together = KvWindow(len(activity[0]), *size)
    alone = [KvWindow(1, *size) for _ in activity[0]]
    for active in activity:
        for row, is_active in enumerate(active):
            same_rows(together.view(), alone[row].view(), row, 0)
            if is_active:
                alone[row].advance([True])
        together.advance(active)


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_staggered_rows_do_the_same_one_tick_later_each(rows: int) -> None:
    views = run_staggered(KvWindow(rows, 16, 8), rows, 30)
    for tick in range(rows, 30):
        for row in range(1, rows):
            same_rows(views[tick], views[tick - row], row, 0)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_full_window_sees_seven_frames_and_itself_at_the_end(rows: int) -> None:
    view = run_staggered(KvWindow(rows, 16, 8), rows, 40)[-1]
    for row in range(rows):
        assert view.position[row] == 15
        assert view.visible[row].sum() == 15
        assert sorted(view.past_position[row][view.visible[row]]) == list(range(15))


def test_the_first_frame_sees_only_the_sink() -> None:
    view = KvWindow(2, 16, 8).view()
    assert view.position.tolist() == view.write_slot.tolist() == [8, 8]
    assert view.visible.tolist() == [[True] * 8 + [False] * 8] * 2


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_reference_wrote_the_same_slots_and_saw_the_same_frames(steps: int) -> None:
    """Its slot ``update_idx`` holds the new frame already, and is visible; ours is hidden: the frame is a key apart."""
    recording = Goldens.open(GOLDENS).recording(steps)
    views = run_staggered(KvWindow(steps, 16, 8), steps, recording.ticks)
    for tick, view in enumerate(views):
        bias, position, slot = (recording.window(tick, name) for name in ("attn_bias", "pe_idx", "update_idx"))
        for row in range(min(tick + 1, steps)):  # others hold no real frame yet
            assert view.write_slot[row] == slot[row]
            assert view.position[row] == position[row, slot[row]]
            visible = view.visible[row].copy()
            assert not visible[slot[row]]
            visible[slot[row]] = True
            np.testing.assert_array_equal(visible, bias[row] == 0)
            past = view.visible[row]
            np.testing.assert_array_equal(view.past_position[row][past], position[row][past])
            np.testing.assert_array_equal(view.past_bias("float32")[row][past], bias[row][past])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_mask_is_zero_or_minus_infinity(dtype: str) -> None:
    view = run_staggered(KvWindow(2, 16, 8), 2, 5)[-1]
    bias = view.past_bias(dtype)
    assert bias.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(bias == 0, view.visible)
    np.testing.assert_array_equal(np.isneginf(bias), ~view.visible)


def test_looking_and_counting_change_nothing() -> None:
    window = KvWindow(2, 16, 8)
    window.advance([True, False])
    before = window.view()
    window.counts[:] = 100
    for row in range(2):
        same_rows(window.view(), before, row, row)
    assert window.counts.tolist() == [1, 0]


def test_reset_begins_again() -> None:
    window = KvWindow(3, 16, 8)
    run_staggered(window, 3, 13)
    window.reset()
    for view, fresh in zip(run_staggered(window, 3, 13), run_staggered(KvWindow(3, 16, 8), 3, 13), strict=True):
        for row in range(3):
            same_rows(view, fresh, row, row)
