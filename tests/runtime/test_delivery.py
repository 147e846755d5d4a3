"""Frames leave in the order in which they came, and a picture that is shown again is the very same."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from live2diff_trt.runtime.delivery import Arrival, DeliveryQueue
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.host_pipeline import ReadyPictures


def arrive(index: int) -> Arrival:
    return Arrival(index, Fraction(index, 25), 0.0)


def ready(*values: int) -> ReadyPictures:
    return ReadyPictures([np.full((1, 1, 3), value, np.uint8) for value in values])


def drain(queue: DeliveryQueue) -> list[FinishedFrame]:
    return [frame for _ in range(len(queue)) for frame in queue.pop().deliver()]


def shown(frames: list[FinishedFrame]) -> list[tuple[int, int, bool]]:
    return [(frame.index, int(frame.image[0, 0, 0]), frame.repeated) for frame in frames]


def test_a_frame_that_repeats_waits_for_the_one_before_it() -> None:
    queue = DeliveryQueue()
    can_repeat = [queue.can_repeat]
    queue.wait(arrive(0))
    assert [*can_repeat, queue.can_repeat] == [False, True]
    queue.repeat(arrive(1))
    queue.wait(arrive(2))
    queue.repeat(arrive(3))
    assert len(queue) == 0
    queue.leave(ready(10, 12), 2)
    assert shown(drain(queue)) == [(0, 10, False), (1, 10, True), (2, 12, False), (3, 12, True)]


def test_with_nothing_on_its_way_the_last_picture_is_shown_at_once() -> None:
    queue = DeliveryQueue()
    for index in range(2):
        queue.wait(arrive(index))
    queue.leave(ready(10, 11), 2)
    for index in range(2, 4):
        queue.repeat(arrive(index))
        assert len(queue) == index
    finished = drain(queue)
    images = [frame.image for frame in finished]
    assert shown(finished) == [(0, 10, False), (1, 11, False), (2, 11, True), (3, 11, True)]
    assert images[1] is images[2] is images[3]


def test_times_are_those_that_frames_came_with() -> None:
    queue = DeliveryQueue()
    queue.wait(arrive(7))
    queue.leave(ready(1))
    (frame,) = drain(queue)
    assert frame.time == Fraction(7, 25)
    assert frame.latency_ms > 0
