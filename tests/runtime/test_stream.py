"""The stream as a user has it: frames in, each once and in order out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt import Stream
from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.runtime.errors import FrameError, StreamClosedError
from live2diff_trt.runtime.frame import FinishedFrame, Image, SourceFrame
from live2diff_trt.runtime.source import FileSource, TestPatternSource

Finish = Callable[..., list[FinishedFrame]]


def pictures(count: int, width: int = 80, height: int = 60) -> Iterator[Image]:
    return (frame.image for frame in islice(TestPatternSource(width, height), count))


@pytest.fixture
def finish(tiny_bundle: Path) -> Finish:
    """Stream a number of test-pattern frames through a fresh stream."""

    def finish_frames(count: int, **options: object) -> list[FinishedFrame]:
        with Stream.open(tiny_bundle, **options) as stream:  # type: ignore[arg-type]
            return list(stream.run(pictures(count)))

    return finish_frames


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 500])
def test_every_frame_comes_out_once_and_in_order(finish: Finish, count: int) -> None:
    finished = finish(count)
    assert [frame.index for frame in finished] == list(range(count))
    assert [frame.time for frame in finished] == [Fraction(index, 25) for index in range(count)]
    assert all(frame.image.shape == (64, 64, 3) and frame.image.dtype == np.uint8 for frame in finished)


@pytest.mark.parametrize("step_list", [(30,), (20, 30, 40), (0, 16, 32, 45), (0, 6, 12, 18, 24, 30, 36, 42)])
def test_any_number_of_steps_streams_on_the_same_bundle(finish: Finish, step_list: tuple[int, ...]) -> None:
    assert [frame.index for frame in finish(19, step_list=step_list)] == list(range(19))


def test_a_frame_leaves_one_tick_less_than_the_number_of_steps_after_it_came(tiny_bundle: Path) -> None:
    with Stream.open(tiny_bundle, step_list=(20, 30, 40)) as stream:
        delivered = [[frame.index for frame in stream(picture)] for picture in pictures(12)]
        assert delivered == [[]] * 7 + [list(range(8)), [], [], [8], [9]]
        assert [frame.index for frame in stream.flush()] == [10, 11]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(finish: Finish) -> None:
    first, again, other = finish(12, seed=7), finish(12, seed=7), finish(12, seed=8)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert all(not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_a_short_clip_does_not_depend_on_what_repeats_its_last_frame(finish: Finish, tiny_bundle: Path) -> None:
    three = list(pictures(3))
    with Stream.open(tiny_bundle) as stream:
        padded = list(stream.run([*three, *[three[-1]] * 5]))
    short = finish(3)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(short, padded[:3], strict=True))


def test_after_a_flush_the_next_frame_begins_a_new_clip(tiny_bundle: Path) -> None:
    with Stream.open(tiny_bundle) as stream:
        first, second = list(stream.run(pictures(11))), list(stream.run(pictures(11)))
    assert [frame.index for frame in second] == list(range(11))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_how_many_frames_follow_does_not_change_a_frame(finish: Finish) -> None:
    short, long = finish(12), finish(15)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(short, long[:12], strict=True))


def test_the_past_matters(tiny_bundle: Path) -> None:
    """The same newest frame after another past gives another picture: temporal attention is at work."""
    same = list(pictures(12))
    changed = [*same[:9], 255 - same[9], *same[10:]]
    with Stream.open(tiny_bundle, step_list=(30,)) as stream:
        a, b = list(stream.run(same)), list(stream.run(changed))
    assert all(np.array_equal(a[index].image, b[index].image) for index in range(9))
    assert not np.array_equal(a[11].image, b[11].image)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_a_flat_first_frame_streams(tiny_bundle: Path, value: int) -> None:
    flat = np.full((64, 64, 3), value, np.uint8)
    with Stream.open(tiny_bundle) as stream:
        finished = list(stream.run([flat, *islice(pictures(20), 1, 12)]))
    assert len(finished) == 12
    assert all(frame.image.std() > 1 for frame in finished)  # a NaN would make every later frame one colour


def test_only_flat_frames_stream(tiny_bundle: Path) -> None:
    with Stream.open(tiny_bundle) as stream:
        finished = list(stream.run([np.zeros((64, 64, 3), np.uint8)] * 10))
    assert all(frame.image.std() > 1 for frame in finished)


def test_a_change_of_size_is_announced_and_survived(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [*pictures(9), *pictures(3, width=200, height=50)]
    with Stream.open(tiny_bundle) as stream, caplog.at_level(logging.WARNING):
        finished = list(stream.run(frames))
    assert len(finished) == 12
    assert [record.getMessage() for record in caplog.records] == [
        "the source changed from 80x60 to 200x50; it is cropped and resized anew"
    ]


def test_the_prompt_acts_on_the_next_tick(tiny_bundle: Path) -> None:
    frames = list(pictures(12))
    with Stream.open(tiny_bundle, prompt="a red fox", step_list=(30,)) as stream:
        unchanged = list(stream.run(frames))
        changed = [finished for frame in frames[:10] for finished in stream(frame)]
        stream.set_prompt("a blue house")
        changed += [finished for frame in frames[10:] for finished in stream(frame)]
    same = [np.array_equal(a.image, b.image) for a, b in zip(unchanged, changed, strict=True)]
    assert same == [True] * 10 + [False] * 2


def test_a_seed_acts_on_the_next_tick_and_can_be_set_back(tiny_bundle: Path) -> None:
    frames = list(pictures(14))
    with Stream.open(tiny_bundle, step_list=(30,), seed=1) as stream:
        unchanged = list(stream.run(frames))
        changed = [finished for frame in frames[:10] for finished in stream(frame)]
        stream.set_seed(2)
        changed += stream(frames[10])
        stream.set_seed(1)
        changed += [finished for frame in frames[11:] for finished in stream(frame)]
        stream.flush()
        again = list(stream.run(frames))
    same = [np.array_equal(a.image, b.image) for a, b in zip(unchanged, changed, strict=True)]
    # Later frames look back at the one that was different.
    assert same == [True] * 10 + [False] * 4
    assert all(np.array_equal(a.image, b.image) for a, b in zip(unchanged, again, strict=True))


def test_presentation_times_are_passed_through(tiny_bundle: Path) -> None:
    times = [Fraction(index**2, 90000) for index in range(10)]
    frames = [SourceFrame(picture, time) for picture, time in zip(pictures(10), times, strict=True)]
    with Stream.open(tiny_bundle) as stream:
        assert [frame.time for frame in stream.run(frames)] == times


def test_latency_is_measured_from_arrival(finish: Finish) -> None:
    finished = finish(12)
    assert all(frame.latency_ms > 0 for frame in finished)
    assert finished[0].latency_ms > finished[7].latency_ms  # the first waited for the other seven


def test_a_real_clip_streams(tiny_bundle: Path, clip: Callable[[str], Path]) -> None:
    with FileSource(clip("carphone_pristine.mp4")) as source, Stream.open(tiny_bundle) as stream:
        finished = list(stream.run(islice(source, 20)))
    assert len(finished) == 20
    assert len({frame.image.tobytes() for frame in finished}) == 20


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
        "not an array",
    ],
)
def test_what_is_no_frame_is_refused_and_the_stream_lives_on(tiny_bundle: Path, image: Image) -> None:
    with Stream.open(tiny_bundle) as stream:
        with pytest.raises(FrameError, match=r"Pass uint8 RGB, \[height, width, 3\]"):
            stream(image)
        assert len(list(stream.run(pictures(9)))) == 9


def test_a_closed_stream_says_so(tiny_bundle: Path) -> None:
    with Stream.open(tiny_bundle) as stream:
        pass
    stream.close()
    for use in (
        lambda: stream(np.zeros((64, 64, 3), np.uint8)),
        stream.flush,
        lambda: stream.set_prompt("x"),
        lambda: stream.set_seed(1),
        lambda: stream.set_similar_image_filter(None),
        lambda: stream.set_rewarm_on_cut(None),
        stream.rewarm,
        stream.pause,
        stream.resume,
    ):
        with pytest.raises(StreamClosedError, match=r"Stream\.open"):
            use()


def test_a_bad_step_list_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(SpecError, match="does not rise"):
        Stream.open(tiny_bundle, step_list=(40, 30))
