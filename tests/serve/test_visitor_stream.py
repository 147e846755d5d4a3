from __future__ import annotations

import threading
from functools import partial

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.serve.inbox import IncomingFrame
from live2diff_trt.serve.messages import Message, Pause, Resume, Rewarm, SetStepList
from live2diff_trt.serve.visitor_stream import OutgoingFrame, VisitorStream
from tests.serve.made_up_server import PlainEngine, picture, wait_until


class Watched:
    """A visitor's stream, and what it showed."""

    def __init__(self, engine: PlainEngine) -> None:
        self.shown: list[OutgoingFrame] = []
        self.ended = threading.Event()
        self.stream = VisitorStream(engine, "a fox", 3, self.shown.append, self.ended.set)
        self.stream.start()
        self._number = 0

    def send(self, frames: int) -> None:
        """Send frames one after the other; each is taken."""
        for _ in range(frames):
            taken = threading.Event()

            def decode(taken: threading.Event = taken, number: int = self._number) -> object:
                taken.set()
                return picture(number)

            self.stream.put_frame(IncomingFrame(decode, self._number, self._number / 25))  # type: ignore[arg-type]
            assert taken.wait(5)
            self._number += 1

    def state(self) -> str:
        return self.stream.state

    def change(self, control: Message) -> Live2DiffError | None:
        answers: list[Live2DiffError | None] = []
        assert self.stream.put_control(control, answers.append)
        wait_until(lambda: bool(answers), "an answer")
        return answers[0]

    def end(self) -> None:
        self.stream.end()
        self.stream.leave()
        assert self.ended.is_set()


def test_frames_come_out_once_in_order_with_their_times() -> None:
    watched = Watched(PlainEngine())
    watched.send(20)
    wait_until(lambda: len(watched.shown) >= 19, "pictures")
    watched.end()
    assert [frame.number for frame in watched.shown] == list(range(19))  # the last one is on its way
    assert [float(frame.time) for frame in watched.shown[:3]] == [0, 0.04, 0.08]
    assert [frame.image[0, 0, 0] for frame in watched.shown] == list(range(19))


def test_states() -> None:
    watched = Watched(PlainEngine())
    watched.send(7)
    assert watched.state() == "warming up"
    watched.send(2)
    wait_until(lambda: watched.state() == "streaming", "streaming")
    assert watched.change(Pause(type="pause")) is None
    assert watched.state() == "paused"
    watched.send(2)
    assert watched.change(Resume(type="resume")) is None
    assert watched.change(Rewarm(type="rewarm")) is None
    watched.send(7)
    assert watched.change(SetStepList(type="step_list", step_list=[4, 5, 6])) is None
    assert watched.state() == "warming up"
    watched.send(4)
    wait_until(lambda: watched.state() == "streaming", "streaming again")
    wait_until(lambda: watched.stream.step_list == (4, 5, 6), "other steps")
    watched.end()


def test_what_waits_is_replaced_and_counted() -> None:
    engine = PlainEngine()
    watched = Watched(engine)
    with engine.turn():
        watched.send(1)  # taken, and waiting for its turn
        for number in range(5):
            watched.stream.put_frame(IncomingFrame(partial(picture, number), number, 1.0))
    wait_until(lambda: watched.stream.frames_dropped == 4, "dropped")
    watched.end()
    assert watched.stream.frames_in == 6


def test_it_ends_while_frames_wait_and_its_stream_is_closed() -> None:
    engine = PlainEngine()
    watched = Watched(engine)
    watched.send(3)
    watched.end()
    assert engine.closed == 1
    assert watched.stream.error is None
    assert not watched.stream.put_control(Rewarm(type="rewarm"), lambda error: None)


def test_an_error_ends_it() -> None:
    engine = PlainEngine()
    engine.error = ZeroDivisionError()
    watched = Watched(engine)
    watched.send(1)
    assert watched.ended.wait(5)
    assert watched.stream.error is engine.error
    assert engine.closed == 1
