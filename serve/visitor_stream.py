"""One visitor's stream, in a thread of its own: the event loop never waits for it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.worker_thread import WorkerThread
from live2diff_trt.serve.controls import apply_control
from live2diff_trt.serve.inbox import Inbox, IncomingControl, IncomingFrame, Reply
from live2diff_trt.serve.messages import Message, Pause, Resume, Rewarm, State

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class OutgoingFrame:
    """A picture for the visitor.

    Attributes:
        image: uint8 RGB [height, width, 3]; not written to.
        time: its presentation time in seconds.
        number: of the frame that it was made of.
        came_at: when that came, on ``time.monotonic``'s clock, in seconds.
    """

    image: Image
    time: Fraction
    number: int
    came_at: float


class VisitorStream:
    """Streams what comes, and shows what is finished.

    Args:
        engine: that all visitors share.
        prompt: to begin with.
        seed: to begin with.
        show: told of each finished picture, in the stream's thread; it must not wait.
        at_end: called in that thread when it is over.

    Attributes:
        state: of the stream; read by any thread.
        step_list: in effect.
        style: in effect, by its name; None: the bundle's own weights.
        frames_in, frames_damaged: that came, and of those what was no picture.
    """

    def __init__(
        self,
        engine: SharedEngine,
        prompt: str,
        seed: int,
        show: Callable[[OutgoingFrame], None],
        at_end: Callable[[], None],
    ) -> None:
        self.state: State = "warming up"
        self.step_list = engine.spec.step_list
        self.style: str | None = None
        self.frames_in = self.frames_damaged = 0
        self._engine, self._prompt, self._seed, self._show = engine, prompt, seed, show
        self._inbox = Inbox()
        self._on_their_way: deque[IncomingFrame] = deque()
        self._began_at: float | None = None
        self._taken = self._first_of_clip = 0
        self._is_warm = self._is_paused = False
        self._thread = WorkerThread("a visitor's stream", self._work, at_end)

    @property
    def frames_dropped(self) -> int:
        """Frames that were not taken because a newer one was there."""
        return self._inbox.dropped

    @property
    def error(self) -> BaseException | None:
        """What ended the stream, if something did."""
        return self._thread.error

    def start(self) -> None:
        """Open the stream, and take what comes."""
        self._thread.start()

    def put_frame(self, frame: IncomingFrame) -> None:
        """Take a frame, in place of one that still waits. Never waits."""
        self.frames_in += 1
        self._inbox.put_frame(frame)

    def put_control(self, control: Message, reply: Reply) -> bool:
        """Change something before the next frame; return whether there was room. Never waits."""
        return self._inbox.put_control(IncomingControl(control, reply))

    def end(self) -> None:
        """Ask the stream to end. Never waits."""
        self._inbox.close()

    def leave(self) -> None:
        """Wait until it has ended."""
        self._thread.leave(LEAVE_SECONDS)

    def _work(self) -> None:
        with self._engine.turn():
            stream = self._engine.open_stream(self._prompt, self._seed)
        with closing(stream):
            for item in self._inbox:
                if isinstance(item, IncomingControl):
                    self._change(stream, item)
                else:
                    self._take(stream, item)

    def _change(self, stream: Stream, item: IncomingControl) -> None:
        try:
            with self._engine.turn():
                apply_control(item.control, stream)
        except Live2DiffError as error:
            item.reply(error)
            return
        self._note_change(item.control)
        item.reply(None)

    def _note_change(self, control: Message) -> None:
        if isinstance(control, Pause | Resume):
            self._is_paused = isinstance(control, Pause)
        if isinstance(control, Rewarm):
            self._first_of_clip, self._is_warm = self._taken, False
        self._note_state()

    def _take(self, stream: Stream, frame: IncomingFrame) -> None:
        try:
            image = frame.decode()
        except FrameError as error:
            self.frames_damaged += 1
            logger.debug("a frame was refused: %s", error)
            return
        if self._began_at is None:
            self._began_at = frame.came_at
        time = Fraction(frame.came_at - self._began_at).limit_denominator(90_000)
        self._on_their_way.append(frame)
        with self._engine.turn():
            finished = stream(image, time)
        self._taken += 1
        self.step_list = stream.spec.step_list
        self.style = None if stream.style is None else str(stream.style)
        for one in finished:
            self._deliver(one)

    def _deliver(self, finished: FinishedFrame) -> None:
        frame = self._on_their_way.popleft()
        self._is_warm = self._is_warm or finished.index >= self._first_of_clip
        self._note_state()
        self._show(OutgoingFrame(finished.image, finished.time, frame.number, frame.came_at))

    def _note_state(self) -> None:
        self.state = "paused" if self._is_paused else "streaming" if self._is_warm else "warming up"
