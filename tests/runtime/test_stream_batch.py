"""Rows against the simplest model of them: a queue that every tick pushes one place on."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.runtime.stream_batch import StreamBatch


@given(steps=st.integers(1, 8), comes=st.lists(st.booleans(), max_size=40))
def test_rows_are_a_queue(steps: int, comes: list[bool]) -> None:
    batch = StreamBatch(steps)
    queue: deque[int | None] = deque([None] * steps)
    for frame, is_there in enumerate(comes):
        queue.pop()
        queue.appendleft(frame if is_there else None)
        if is_there:
            batch.enter(frame)
        assert batch.frames == list(queue)
        assert batch.active == [one is not None for one in queue]
        assert batch.in_flight == sum(batch.active)
        assert batch.advance() == queue[-1]
        assert batch.frames == [None, *list(queue)[:-1]]


@given(steps=st.integers(1, 8), gaps=st.lists(st.integers(0, 3), max_size=20))
def test_every_frame_leaves_once_in_order_and_as_late_as_there_are_other_rows(steps: int, gaps: list[int]) -> None:
    batch = StreamBatch(steps)
    entered: dict[int, int] = {}
    left: dict[int, int] = {}
    ticks = [tick for frame, gap in enumerate(gaps) for tick in [*[None] * gap, frame]] + [None] * (steps - 1)
    for tick, frame in enumerate(ticks):
        if frame is not None:
            entered[frame] = tick
            batch.enter(frame)
        finished = batch.advance()
        if finished is not None:
            left[finished] = tick
    assert batch.in_flight == 0
    assert list(left) == list(entered)
    assert all(left[frame] == tick + steps - 1 for frame, tick in entered.items())


def test_resetting_forgets_every_frame() -> None:
    batch = StreamBatch(3)
    batch.enter(4)
    batch.advance()
    batch.enter(5)
    batch.reset()
    assert batch.frames == [None, None, None]
    assert [batch.advance() for _ in range(4)] == [None] * 4


def test_frame_zero_is_a_frame() -> None:
    batch = StreamBatch(2)
    batch.enter(0)
    assert (batch.active, batch.in_flight) == ([True, False], 1)
    assert [batch.advance(), batch.advance()] == [None, 0]
