"""A run in three threads: every frame once and in order, errors where they belong, and nothing waits for ever."""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_trt.runtime import paced_run
from live2diff_trt.runtime.errors import SinkError, SourceError
from live2diff_trt.runtime.frame import FinishedFrame, Image, empty_frame
from live2diff_trt.runtime.paced_run import DECODED_AHEAD, FINISHED_AHEAD, PacedRun
from live2diff_trt.runtime.pacing import Pace
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import Bench
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.made_up_ends import RATE, KeepingSink, MadeUpSink, MadeUpSource
from tests.runtime.plain_pipeline import PlainPipeline

LONG = 20.0


def ignore(frame: FinishedFrame, latency_ms: float) -> None:
    pass


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("the ")]
    for thread in left:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in left)


def go(source: MadeUpSource, sink: MadeUpSink, pace: Pace = "all", frames: int | None = None) -> PacedRun:
    """Run to the end, and return the run."""
    run = PacedRun(source, sink, pace, ignore)
    drive(run, frames)
    return run


def drive(run: PacedRun, frames: int | None = None, seen: Callable[[FinishedFrame], None] = lambda _: None) -> None:
    stream = Stream(PlainPipeline())
    with run:
        for finished in stream.run(islice(run.frames(), frames)):
            run.deliver(finished)
            seen(finished)


@settings(max_examples=25)
@given(count=st.integers(0, 60), pace=st.sampled_from(["all", "source"]))
def test_every_frame_comes_out_once_in_order_at_its_time(count: int, pace: Pace) -> None:
    source, sink = MadeUpSource(count, frame_rate=Fraction(10000)), MadeUpSink()
    assert go(source, sink, pace).dropped == 0
    assert sink.shown == list(range(count))
    assert sink.times == [index / source.frame_rate for index in range(count)]
    assert sink.left_with == [None]


def test_reading_streaming_and_writing_happen_at_the_same_time() -> None:
    """Each waits for the other two: one after the other, they would never get there."""
    meeting = threading.Barrier(3, timeout=LONG)

    def meet_at(number: int) -> Callable[[int], None]:
        def before(index: int) -> None:
            if index == number:
                meeting.wait()

        return before

    sink = MadeUpSink(before=meet_at(8))
    source = MadeUpSource(40, before=meet_at(14))
    stream = Stream(PlainPipeline(steps=1))
    with PacedRun(source, sink, "all", ignore) as run:
        for finished in stream.run(run.frames()):
            run.deliver(finished)
            if finished.index == 10:
                meeting.wait()
    assert sink.shown == list(range(40))


def test_a_slow_sink_holds_the_source_back() -> None:
    """Nothing piles up: what was read and not written is no more than the queues and the stream hold."""
    read: list[int] = []
    ahead: list[int] = []
    source = MadeUpSource(300, before=read.append)
    sink = MadeUpSink(before=lambda written: ahead.append(len(read) - written))
    go(source, sink)
    # In hand: one being read, one being taken, 8 that warm up or T on their way, one that waits for room, one written.
    assert max(ahead) <= DECODED_AHEAD + FINISHED_AHEAD + 8 + 4


@pytest.mark.parametrize("pace", ["all", "live"])
def test_memory_stays_flat(pace: Pace) -> None:
    alive = most = 0

    def note_end() -> None:
        nonlocal alive
        alive -= 1

    def new_frame(height: int, width: int) -> Image:
        nonlocal alive, most
        image = empty_frame(height, width)
        weakref.finalize(image, note_end)
        alive += 1
        most = max(most, alive)
        return image

    go(MadeUpSource(400, new_frame=new_frame, is_live=True), MadeUpSink(), pace)
    assert most <= DECODED_AHEAD + 3  # those that the stream took are its own copies
    assert alive == 0


def test_live_the_newest_frame_wins_and_late_ones_are_counted() -> None:
    """While the stream is busy with frame 0, frames 1 to 9 come: it goes on with frame 9."""
    came, taken = threading.Event(), threading.Event()

    def before(index: int) -> None:
        if index == 1:
            assert taken.wait(LONG)
        if index == 10:
            came.set()

    source, sink = MadeUpSource(10, before=before, is_live=True), MadeUpSink()
    source.frame_count = 11
    stream = Stream(PlainPipeline())
    run = PacedRun(source, sink, "live", ignore)

    def frames() -> Iterator[object]:
        for frame in run.frames():
            taken.set()
            assert came.wait(LONG)
            yield frame

    with run:
        for finished in stream.run(frames()):  # type: ignore[arg-type]
            run.deliver(finished)
    assert sink.shown[0] == 0
    assert sink.shown[1] >= 9
    assert sink.shown[-1] == 10
    assert run.dropped == 11 - len(sink.shown)
    assert sink.times == [index / RATE for index in sink.shown]


def test_a_source_that_is_not_live_is_held_to_its_clock() -> None:
    held: list[Fraction] = []

    class Recorder:
        def hold(self, time: Fraction) -> None:
            held.append(time)

    for pace, is_live, expected in itertools.product(("all", "live", "source"), (False, True), (True,)):
        held.clear()
        run = PacedRun(MadeUpSource(5, is_live=is_live), MadeUpSink(), pace, ignore)  # type: ignore[arg-type]
        if run._clock is not None:
            run._clock = Recorder()  # type: ignore[assignment]
        with run:
            list(run.frames())
        assert bool(held) == (expected and pace != "all" and not is_live)


def test_latency_is_from_capture_to_delivery() -> None:
    ticks = itertools.count()
    now = {"seconds": 0.0}
    lock = threading.Lock()
    captured: list[float] = []
    latencies: list[float] = []
    delivered: list[float] = []

    def clock() -> float:
        with lock:
            now["seconds"] = next(ticks) * 0.001
            place = captured if threading.current_thread().name == "the reader of the source" else delivered
            place.append(now["seconds"])
            return now["seconds"]

    sink = MadeUpSink()
    stream = Stream(PlainPipeline())
    with PacedRun(MadeUpSource(30), sink, "all", lambda frame, latency_ms: latencies.append(latency_ms), clock) as run:
        for finished in stream.run(run.frames()):
            run.deliver(finished)
    expected = [(late - early) * 1000 for early, late in zip(captured, delivered, strict=True)]
    assert latencies == pytest.approx(expected)
    assert min(latencies) > 0


def test_an_error_of_the_source_ends_the_run_after_what_came_before() -> None:
    def before(index: int) -> None:
        if index == 20:
            raise SourceError("the cable came off", "Plug it in")

    sink = MadeUpSink()
    with pytest.raises(SourceError, match="the cable came off"):
        go(MadeUpSource(before=before), sink)
    assert sink.shown == list(range(19))  # frame 19 is in the stream, a step before its end
    assert sink.left_with != [None]


@pytest.mark.parametrize("at", [0, 9, 39])
def test_an_error_of_the_sink_ends_the_run(at: int) -> None:
    def before(index: int) -> None:
        if index == at:
            raise SinkError("the disk is full", "Empty it")

    sink = MadeUpSink(before=before)
    with pytest.raises(SinkError, match="the disk is full"):
        go(MadeUpSource(40), sink)
    assert sink.shown == list(range(at))
    assert sink.left_with == [SinkError]


def test_an_error_of_the_sink_is_told_though_the_source_gives_nothing() -> None:
    stalled = threading.Event()

    def before(index: int) -> None:
        if index == 12:
            stalled.wait(LONG)

    def fail(index: int) -> None:
        raise SinkError("the disk is full", "Empty it")

    try:
        with pytest.raises(SinkError, match="the disk is full"):
            go(MadeUpSource(before=before), MadeUpSink(before=fail))
    finally:
        stalled.set()


def test_a_sink_that_can_not_be_entered_ends_the_run() -> None:
    class Shut(MadeUpSink):
        def __enter__(self) -> Shut:
            raise SinkError("there is no folder", "Make it")

    with pytest.raises(SinkError, match="there is no folder"):
        go(MadeUpSource(), Shut())


def test_a_sink_that_can_not_be_completed_ends_the_run() -> None:
    class Unfinished(MadeUpSink):
        def __exit__(self, *_: object) -> None:
            raise SinkError("the end can't be written", "Empty the disk")

    with pytest.raises(SinkError, match="the end can't be written"):
        go(MadeUpSource(10), Unfinished())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_of_the_stream_stops_both_and_what_is_finished_is_written(error: type[BaseException]) -> None:
    def fail(finished: FinishedFrame) -> None:
        if finished.index == 30:
            raise error

    sink = MadeUpSink()
    with pytest.raises(error):
        drive(PacedRun(MadeUpSource(), sink, "all", ignore), seen=fail)
    assert sink.shown == list(range(31))
    assert sink.left_with != [None]


def test_ctrl_c_while_the_sink_is_completed() -> None:
    entered = threading.Event()
    released = threading.Event()

    def before(index: int) -> None:
        if index == 5:
            entered.set()
            released.wait(LONG)

    sink = MadeUpSink(before=before)
    run = PacedRun(MadeUpSource(10), sink, "all", ignore)

    def interrupted() -> None:
        assert entered.wait(LONG)
        released.set()
        raise KeyboardInterrupt

    run._writer.join = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        drive(run)
    assert sink.shown == list(range(10))


def test_who_takes_enough_leaves_an_endless_source() -> None:
    sink = MadeUpSink()
    go(MadeUpSource(), sink, frames=15)
    assert sink.shown == list(range(15))
    assert sink.left_with == [None]


def test_a_source_that_does_not_return_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(paced_run, "READER_GRACE_SECONDS", 0.05)
    stalled = threading.Event()

    def before(index: int) -> None:
        if index == 15:
            stalled.wait(LONG)

    sink = MadeUpSink()
    with caplog.at_level(logging.WARNING):
        go(MadeUpSource(before=before), sink, frames=15)
    stalled.set()
    assert sink.shown == list(range(15))
    assert "the reader of the source did not end within 0.05 s" in caplog.text


@pytest.mark.parametrize("overlap", [False, True])
def test_page_locked_frames_are_read_before_they_are_used_again(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    """The pictures are those of frames in ordinary memory."""
    frames = 24

    def run_plainly(stream: Stream) -> list[FinishedFrame]:
        return list(stream.run(MadeUpSource(frames)))

    def run_in_threads(stream: Stream) -> list[FinishedFrame]:
        source, sink = MadeUpSource(frames, new_frame=stream.empty_frame), KeepingSink()
        with PacedRun(source, sink, "all", ignore) as run:
            for finished in stream.run(run.frames(), ahead=stream.full_ahead):
                run.deliver(finished)
        return sink.frames

    expected = bench.device(run_plainly, "split", overlap=overlap)
    found = bench.device(run_in_threads, "split", overlap=overlap)
    assert [frame.index for frame in found] == list(range(frames))
    assert all((one.image == other.image).all() for one, other in zip(found, expected, strict=True))
