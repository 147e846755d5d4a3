"""The queue between two threads: bounded, in order, and nobody waits for what will not come."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.runtime.frame_queue import FrameQueue, QueueStopped

LONG = 20.0


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@given(items=st.lists(st.integers(), max_size=40), size=st.integers(1, 5))
def test_all_that_is_put_is_taken_in_order(items: list[int], size: int) -> None:
    queue: FrameQueue[int] = FrameQueue(size)

    def put_all() -> None:
        for item in items:
            assert queue.put(item)
            assert len(queue._items) <= size
        queue.finish()

    thread = beside(put_all)
    assert list(queue) == items
    thread.join(LONG)
    assert queue.dropped == 0


@given(items=st.lists(st.integers(), max_size=40), size=st.integers(1, 5))
def test_where_the_newest_wins_the_oldest_are_dropped_and_counted(items: list[int], size: int) -> None:
    queue: FrameQueue[int] = FrameQueue(size, newest_wins=True)
    assert all(queue.put(item) for item in items)
    queue.finish()
    assert list(queue) == items[-size:]
    assert queue.dropped == max(0, len(items) - size)


def test_who_puts_waits_for_room() -> None:
    queue: FrameQueue[int] = FrameQueue(1)
    queue.put(0)
    thread = beside(lambda: queue.put(1))
    items = iter(queue)
    assert [next(items), next(items)] == [0, 1]
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.parametrize("newest_wins", [False, True])
def test_after_the_end_nothing_is_put(newest_wins: bool) -> None:
    for end in (FrameQueue.finish, FrameQueue.stop):
        queue: FrameQueue[int] = FrameQueue(1, newest_wins=newest_wins)
        queue.put(0)
        end(queue)
        assert not queue.put(1)
        assert queue.dropped == 0
        assert next(iter(queue)) == 0


def test_a_stop_wakes_both_sides() -> None:
    full: FrameQueue[int] = FrameQueue(1)
    empty: FrameQueue[int] = FrameQueue(1)
    full.put(0)
    found: list[object] = []

    def take() -> None:
        with pytest.raises(QueueStopped):
            found.append(list(empty))
        found.append("stopped")

    threads = [beside(lambda: found.append(full.put(1))), beside(take)]
    full.stop()
    empty.stop()
    for thread in threads:
        thread.join(LONG)
    assert sorted(map(str, found)) == ["False", "stopped"]


def test_what_is_in_a_stopped_queue_is_taken_first() -> None:
    queue: FrameQueue[int] = FrameQueue(3)
    queue.put(0)
    queue.put(1)
    queue.stop()
    taken: list[int] = []
    with pytest.raises(QueueStopped):
        taken.extend(queue)  # extend keeps what came before
    assert taken == [0, 1]


def test_to_stop_a_finished_queue_changes_nothing() -> None:
    queue: FrameQueue[int] = FrameQueue(3)
    queue.put(0)
    queue.finish()
    queue.stop()
    assert list(queue) == [0]


def test_nothing_is_kept_of_what_was_taken() -> None:
    class Thing:
        pass

    queue: FrameQueue[Thing] = FrameQueue(2)
    thing = Thing()
    kept = weakref.ref(thing)
    queue.put(thing)
    items = iter(queue)
    del thing
    next(items)
    threading.Timer(0.05, queue.finish).start()
    assert next(items, None) is None
    assert kept() is None
