"""Whatever is done to a stream, in any order: every frame comes out once, in order, and shows itself or the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.runtime.errors import ControlError, FrameError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.scene_cut import SceneCut
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.stream import Stream
from tests.runtime.plain_pipeline import PlainPipeline

SINK = 8


def tell(number: int, brightness: int = 200) -> Image:
    """Return a picture that says which frame it is, and is like all others of its brightness."""
    picture = np.full((64, 64, 3), brightness, np.uint8)
    picture[0, 0] = number // 256, number % 256, 0  # not one of the pixels that frames are compared by
    return picture


def told(image: Any) -> int:
    return int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])


frames = st.builds(
    lambda count, brightness: ("frame", count, brightness), st.integers(1, 6), st.sampled_from([60, 200])
)
controls = st.sampled_from(
    [
        *(("pause",), ("resume",), ("rewarm",), ("flush",), ("bad frame",), ("bad control",)),
        ("prompt", "a fox", None),
        ("prompt", PromptBlend({"a fox": 1, "a cat": 2}, "spherical"), Transition(3, "frames")),
        ("prompt", "a cat", Transition(0.2)),
        *(("filter", None), ("filter", SimilarImageFilter(0.5, 1)), ("filter", SimilarImageFilter(0.9, 3))),
        *(("cut", None), ("cut", SceneCut())),
        *(("steps", (7,)), ("steps", (20, 40)), ("steps", (5, 6, 7, 8))),
        *(("strength", 0.3), ("strength", 1)),
        *(("guidance", Guidance()), ("guidance", Guidance("self")), ("guidance", Guidance("full", 3, "a cat"))),
    ]
)
actions = st.lists(st.one_of(frames, frames, controls), max_size=40)


@dataclass
class Run:
    """A stream, and what was asked of it: frames that were given are counted, over all clips."""

    stream: Stream
    given: int = 0
    clip_starts: list[int] = field(default_factory=lambda: [0])
    finished: list[tuple[int, FinishedFrame]] = field(default_factory=list)

    def do(self, kind: str, *values: Any) -> None:
        stream = self.stream
        if kind == "frame":
            for _ in range(values[0]):
                self.keep(stream(tell(self.given, values[1])))
                self.given += 1
        elif kind == "flush":
            self.keep(stream.flush())
            assert len(self.finished) == self.given
            self.clip_starts.append(self.given)
        elif kind == "pause" and not self.given:
            with pytest.raises(ControlError, match="Pause after the first frame"):
                stream.pause()
        elif kind == "bad frame":
            with pytest.raises(FrameError):
                stream(np.zeros((64, 64), np.uint8))
        elif kind == "bad control":
            refuse_bad_controls(stream)
        else:
            self.control(kind, *values)

    def control(self, kind: str, *values: Any) -> None:
        calls: dict[str, Callable[..., None]] = {
            "prompt": self.stream.set_prompt,
            "filter": self.stream.set_similar_image_filter,
            "cut": self.stream.set_rewarm_on_cut,
            "pause": self.stream.pause,
            "resume": self.stream.resume,
            "rewarm": self.stream.rewarm,
            "steps": self.stream.set_step_list,
            "strength": self.stream.set_strength,
            "guidance": self.stream.set_guidance,
        }
        calls[kind](*values)

    def keep(self, finished: Sequence[FinishedFrame]) -> None:
        self.finished += [(self.clip_starts[-1], frame) for frame in finished]


def refuse_bad_controls(stream: Stream) -> None:
    bad: list[Callable[[], None]] = [
        lambda: stream.set_prompt(3),  # type: ignore[arg-type]
        lambda: stream.set_prompt("x", 2),  # type: ignore[arg-type]
        lambda: stream.set_seed("x"),  # type: ignore[arg-type]
        lambda: stream.set_similar_image_filter(0.9),  # type: ignore[arg-type]
        lambda: stream.set_rewarm_on_cut(True),  # type: ignore[arg-type]
        lambda: stream.set_step_list((40, 30)),
        lambda: stream.set_step_list(range(5)),  # there is room for 4
        lambda: stream.set_step_list(30),  # type: ignore[arg-type]
        lambda: stream.set_guidance(Guidance("initialize")),  # there is no room for it
        lambda: stream.set_step_list(("30", "40")),  # type: ignore[arg-type]
        lambda: stream.set_strength(0),
        lambda: stream.set_strength(float("nan")),
        lambda: stream.set_strength("0.4"),  # type: ignore[arg-type]
    ]
    for control in bad:
        with pytest.raises(ControlError):
            control()


@given(actions, st.integers(1, 4))
def test_every_frame_comes_out_once_in_order_and_shows_itself_or_the_one_before(
    done: list[tuple[Any, ...]], steps: int
) -> None:
    pipeline = PlainPipeline(steps)
    run = Run(Stream(pipeline))
    run.stream.set_prompt("a house")
    for action in done:
        run.do(*action)
    run.do("flush")

    assert [start + frame.index for start, frame in run.finished] == list(range(run.given))
    shown: Image | None = None
    for start, frame in run.finished:
        if frame.repeated:
            assert frame.image is shown
        else:
            assert told(frame.image) == start + frame.index
        shown = frame.image
    assert pipeline.in_flight == 0


@given(actions, st.integers(1, 4))
def test_no_frame_leaves_later_than_it_would_have(done: list[tuple[Any, ...]], steps: int) -> None:
    """Whatever was skipped or paused, once there is a sink a frame leaves with the T − 1st one after it, or before."""
    run = Run(Stream(PlainPipeline(steps)))
    run.stream.set_prompt("a house")
    for action in done:
        run.do(*action)
        if run.stream._clip.is_warm:
            assert run.given - len(run.finished) <= run.stream.spec.steps - 1


@given(actions, st.integers(1, 3))
def test_the_same_is_done_again_bit_by_bit(done: list[tuple[Any, ...]], steps: int) -> None:
    """Nothing depends on clocks or on anybody's random state."""

    def calls(seed: int) -> tuple[Any, ...]:
        pipeline = PlainPipeline(steps)
        run = Run(Stream(pipeline))
        run.stream.set_seed(seed)
        run.stream.set_prompt("a house")
        for action in done:
            run.do(*action)
        changes = [steps for steps, _ in pipeline.changes]
        return pipeline.ticks, pipeline.warm_ups, [told.tobytes() for told in pipeline.told], pipeline.encoded, changes

    assert calls(3) == calls(3)


def at_ease(frames: int, steps: int = 2, **settings: Any) -> tuple[PlainPipeline, Stream]:
    """Return a stream that took a number of frames."""
    pipeline = PlainPipeline(steps)
    stream = Stream(pipeline, **settings)
    stream.set_prompt("a house")
    for number in range(frames):
        stream(tell(number))
    return pipeline, stream


def test_a_pause_finishes_what_is_on_its_way_and_then_computes_nothing() -> None:
    pipeline, stream = at_ease(11, steps=3)
    stream.pause()
    ticks = len(pipeline.ticks)
    finished = stream(tell(11))
    assert [(frame.index, told(frame.image), frame.repeated) for frame in finished] == [
        (9, 9, False),
        (10, 10, False),
        (11, 10, True),
    ]
    assert len(pipeline.ticks) == ticks + 2
    assert [[(frame.index, told(frame.image)) for frame in stream(tell(number))] for number in (12, 13)] == [
        [(12, 10)],
        [(13, 10)],
    ]
    assert len(pipeline.ticks) == ticks + 2
    stream.resume()
    assert stream(tell(14)) == []
    assert [told(frame.image) for frame in stream.flush()] == [14]


def test_frames_of_a_pause_before_the_sink_wait_for_the_frames_before_them() -> None:
    _, stream = at_ease(3)
    stream.pause()
    assert stream(tell(3)) == []
    stream.resume()
    finished = [frame for number in range(4, 9) for frame in stream(tell(number))]
    assert [(frame.index, told(frame.image)) for frame in finished] == [
        *((0, 0), (1, 1), (2, 2), (3, 2)),
        *((number, number) for number in range(4, 9)),
    ]


def test_a_pause_goes_on_behind_a_flush_and_is_never_without_a_picture() -> None:
    _, stream = at_ease(9)
    stream.pause()
    stream.flush()
    assert [(frame.index, told(frame.image)) for frame in stream(tell(0))] == [(0, 8)]


def test_pausing_and_resuming_between_two_frames_changes_nothing() -> None:
    pipeline, stream = at_ease(10)
    stream.pause()
    stream.resume()
    assert [frame.index for frame in stream(tell(10))] == [9]
    assert pipeline.ticks == [8, 9, 10]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_rewarm_finishes_what_is_on_its_way_and_begins_a_clip(steps: int) -> None:
    pipeline, stream = at_ease(12, steps)
    stream.rewarm()
    assert [frame.index for frame in stream(tell(12))] == list(range(13 - steps, 12))
    assert [stream(tell(number)) for number in range(13, 19)] == [[]] * 6
    assert [told(frame.image) for frame in stream(tell(19))] == list(range(12, 20))
    assert pipeline.warm_ups == [8, 8]
    stream(tell(20))
    assert pipeline.ticks[-1] == 8  # numbers, and so noise, are those of a new clip


def test_a_rewarm_while_frames_are_gathered_ends_a_short_clip() -> None:
    pipeline, stream = at_ease(3)
    stream.rewarm()
    assert [told(frame.image) for frame in stream(tell(3))] == [0, 1, 2]
    assert pipeline.warm_ups == [3]


def test_a_rewarm_waits_for_the_end_of_a_pause() -> None:
    pipeline, stream = at_ease(10)
    stream.pause()
    stream.rewarm()
    stream(tell(10))
    assert pipeline.warm_ups == [8]
    stream.resume()
    finished = [frame for number in range(11, 19) for frame in stream(tell(number))]
    assert [told(frame.image) for frame in finished] == list(range(11, 19))
    assert pipeline.warm_ups == [8, 8]


def test_what_is_refused_after_a_rewarm_loses_no_frame() -> None:
    _, stream = at_ease(12, steps=4)
    stream.rewarm()
    with pytest.raises(FrameError):
        stream(np.zeros((64, 64), np.uint8))
    assert [frame.index for frame in stream(tell(12))] == [9, 10, 11]


def test_a_cut_is_a_rewarm_and_the_new_scene_has_the_sink_to_itself() -> None:
    pipeline, stream = at_ease(12)
    stream.set_rewarm_on_cut(SceneCut())
    stream(tell(12))
    assert [frame.index for frame in stream(tell(13, brightness=60))] == [12]
    finished = [frame for number in range(14, 21) for frame in stream(tell(number, brightness=60))]
    assert [told(frame.image) for frame in finished] == list(range(13, 21))
    assert pipeline.warm_ups == [8, 8]


def test_a_skipped_frame_waits_for_the_frames_before_it() -> None:
    pipeline, stream = at_ease(10, steps=3)
    stream.set_similar_image_filter(SimilarImageFilter(0.5, maximum_skipped=4))
    stream(tell(10))  # the first that is looked at
    delivered = [[(frame.index, told(frame.image)) for frame in stream(tell(number))] for number in range(11, 17)]
    assert delivered == [
        [(9, 9)],
        [(10, 10), (11, 10), (12, 10)],
        [(13, 10)],
        [(14, 10)],
        [],
        [],
    ]
    assert pipeline.ticks == [8, 9, 10, None, None, 15, None]


@pytest.mark.parametrize("maximum", [1, 2, 5])
def test_of_frames_that_are_the_same_no_more_are_skipped_in_a_row(maximum: int) -> None:
    pipeline, stream = at_ease(8)
    stream.set_similar_image_filter(SimilarImageFilter(0.5, maximum))
    for number in range(8, 8 + 3 * (maximum + 1)):
        stream(tell(number))
    entered = [frame for frame in pipeline.ticks if frame is not None]
    assert entered == [8, 9 + maximum, 10 + 2 * maximum]


@given(actions, st.integers(1, 4))
def test_other_steps_are_warmed_up_from_the_newest_frames_that_were_computed(
    done: list[tuple[Any, ...]], steps: int
) -> None:
    """From 8, once there is a sink, in the order in which they came; before that from none."""
    pipeline = PlainPipeline(steps)
    run = Run(Stream(pipeline))
    run.stream.set_prompt("a house")
    given_at: list[tuple[int, int]] = []
    for action in done:
        before, started = len(pipeline.changes), run.given
        run.do(*action)
        given_at += [(started, run.clip_starts[-1])] * (len(pipeline.changes) - before)
    for (_, kept), (count, start) in zip(pipeline.changes, given_at, strict=True):
        numbers = [told(picture) for picture in kept]
        assert len(numbers) in (0, SINK)
        assert numbers == sorted(set(numbers))
        assert all(start <= number < count + 6 for number in numbers)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 2), (4, 1)])
def test_other_steps_finish_what_is_on_its_way_and_gather_nothing(before: int, after: int) -> None:
    pipeline, stream = at_ease(12, before)
    stream.set_step_list(tuple(range(40, 40 + after)))
    assert pipeline.prepared == [(tuple(range(40, 40 + after)), "none")]
    assert (pipeline.changes, stream.spec.steps) == ([], before)
    finished = stream(tell(12))
    assert [frame.index for frame in finished] == list(range(13 - before, 13 if after == 1 else 12))
    (steps, _), kept = pipeline.changes[0]
    assert (steps, [told(picture) for picture in kept]) == (stream.spec.step_list, list(range(4, 12)))
    assert pipeline.warm_ups == [8]
    assert pipeline.ticks[-1] == 12  # numbers, and so noise, go on
    finished = [frame for number in range(13, 20) for frame in stream(tell(number))]
    assert [told(frame.image) for frame in finished] == list(range(13 if after == 1 else 12, 21 - after))


def test_steps_that_change_while_frames_are_gathered_simply_take_effect() -> None:
    pipeline, stream = at_ease(5, steps=1)
    stream.set_step_list((20, 30, 40))
    finished = [frame for number in range(5, 9) for frame in stream(tell(number))]
    assert [told(frame.image) for frame in finished] == list(range(8))
    assert pipeline.changes == [(((20, 30, 40), "none"), [])]


def test_steps_that_are_set_back_before_a_frame_came_change_nothing() -> None:
    pipeline, stream = at_ease(10)
    steps = stream.spec.step_list
    stream.set_step_list((1, 2, 3))
    stream.set_step_list(steps)
    stream(tell(10))
    assert pipeline.changes == []
    assert pipeline.ticks == [8, 9, 10]


def test_a_strength_keeps_the_number_of_steps_that_was_set_last() -> None:
    pipeline, stream = at_ease(10)
    stream.set_step_list((10, 20, 30))
    stream.set_strength(np.float32(0.6))  # type: ignore[arg-type]
    stream(tell(10))
    assert stream.spec.step_list == (20, 30, 40)
    assert len(pipeline.changes) == 1
    with pytest.raises(ControlError, match="leaves 2 of LCM's 50 timesteps for 3 steps"):
        stream.set_strength(0.04)


def test_more_steps_than_there_is_room_for_are_refused_with_the_remedy() -> None:
    pipeline, stream = at_ease(10)
    with pytest.raises(ControlError, match=r"room for 4 .* not for 5\. Open it with max_steps=5"):
        stream.set_step_list((10, 20, 30, 40, 45))
    assert [frame.index for frame in stream(tell(10))] == [9]
    assert (pipeline.prepared, pipeline.changes) == ([], [])


def test_steps_wait_for_the_end_of_a_pause_and_a_rewarm_leaves_them_nothing_to_warm_up_from() -> None:
    pipeline, stream = at_ease(10)
    stream.pause()
    stream.set_step_list((7,))
    stream(tell(10))
    assert pipeline.changes == []
    stream.resume()
    stream.rewarm()
    stream(tell(11))
    assert pipeline.changes == [(((7,), "none"), [])]


def test_another_kind_of_guidance_finishes_what_is_on_its_way_under_the_one_before() -> None:
    pipeline, stream = at_ease(12, steps=2)
    stream.set_guidance(Guidance("full", 3, "a cat"))
    stream.set_guidance_scale(4)
    assert (pipeline.prepared[-1][1], pipeline.changes, pipeline.guidance) == ("full", [], Guidance())
    assert [frame.index for frame in stream(tell(12))] == [11]
    ((steps, kind), kept) = pipeline.changes[0]
    assert (steps, kind, [told(picture) for picture in kept]) == (stream.spec.step_list, "full", list(range(4, 12)))
    assert pipeline.guidance == Guidance("full", 4, "a cat")
    stream.set_guidance(Guidance("full", 5))
    assert pipeline.guidance == Guidance("full", 5)  # of the kind in effect: from the next tick on
    assert (len(pipeline.changes), len(pipeline.prepared)) == (1, 2)


def test_steps_and_a_kind_that_change_between_two_frames_are_one_change() -> None:
    pipeline, stream = at_ease(12)
    stream.set_guidance(Guidance("self"))
    stream.set_step_list((7,))
    stream(tell(12))
    assert [rows for rows, _ in pipeline.changes] == [((7,), "self")]


def test_a_kind_that_is_set_back_before_a_frame_came_changes_nothing() -> None:
    pipeline, stream = at_ease(10)
    stream.set_guidance(Guidance("self"))
    stream.set_guidance(Guidance())
    stream(tell(10))
    assert pipeline.changes == []


def test_warm_up_skips_nothing() -> None:
    pipeline = PlainPipeline()
    stream = Stream(pipeline)
    stream.set_similar_image_filter(SimilarImageFilter())
    assert not any(frame.repeated for number in range(8) for frame in stream(tell(number)))
    assert pipeline.warm_ups == [8]


class OnDevice:
    """A frame that lies on a CUDA device."""

    __cuda_array_interface__: ClassVar[dict[str, Any]] = {}
    shape = (64, 64, 3)


@pytest.mark.parametrize("looks", ["filter", "cut"])
def test_a_frame_on_the_device_is_refused_where_frames_are_compared(looks: str) -> None:
    _, stream = at_ease(9)
    if looks == "filter":
        stream.set_similar_image_filter(SimilarImageFilter())
    else:
        stream.set_rewarm_on_cut(SceneCut())
    with pytest.raises(FrameError, match="Pass frames in host memory"):
        stream(OnDevice())
    assert [frame.index for frame in stream(tell(9))] == [8]


def test_a_pause_takes_frames_on_the_device_and_refuses_what_is_no_frame() -> None:
    _, stream = at_ease(9)
    stream.pause()
    with pytest.raises(FrameError):
        stream("not an array")
    assert [frame.index for frame in stream(OnDevice())] == [8, 9]


def test_frames_taken_ahead_come_out_in_order_too() -> None:
    stream = Stream(PlainPipeline(3))
    stream.set_prompt("a house")
    stream.set_similar_image_filter(SimilarImageFilter(0.5, 2))

    def source() -> Any:
        for number in range(30):
            if number == 15:
                stream.pause()
            if number == 18:
                stream.resume()
                stream.rewarm()
            yield tell(number)

    assert [frame.index for frame in stream.run(source(), ahead=3)] == list(range(30))
