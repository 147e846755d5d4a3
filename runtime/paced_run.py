"""A run in three threads: one reads the source, the caller's streams, one writes to the sink; queues lie between."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from live2diff_trt.runtime.frame import FinishedFrame, SourceFrame
from live2diff_trt.runtime.frame_queue import FrameQueue, QueueStopped
from live2diff_trt.runtime.pacing import Pace, SourceClock
from live2diff_trt.runtime.sink import Sink
from live2diff_trt.runtime.source import Source
from live2diff_trt.runtime.worker_thread import WorkerThread

DECODED_AHEAD = 4
"""Frames that are decoded before the stream takes them; one where the newest wins."""
FINISHED_AHEAD = 8
"""Finished frames that wait for the sink: as many as a warm-up delivers together."""
READER_GRACE_SECONDS = 1.0
WRITER_GRACE_SECONDS = 10.0

Note = Callable[[FinishedFrame, float], None]
"""A frame that the sink took, and its latency from capture to delivery in ms. Called in the writing thread."""


@dataclass(frozen=True, eq=False)
class CapturedFrame:
    """A frame of the source, and when it was there, on ``time.perf_counter``'s clock in seconds."""

    frame: SourceFrame
    captured_at: float


@dataclass(frozen=True, eq=False)
class LeavingFrame:
    """A finished frame, and when the frame it was made of was captured."""

    frame: FinishedFrame
    captured_at: float


class PacedRun:
    """Source and sink at work beside the stream, which stays in the thread that entered this.

    ::

        with PacedRun(source, sink, "live", note) as run:
            for finished in stream.run(run.frames()):
                run.deliver(finished)

    Each frame of ``frames`` is delivered once, in order. The sink is entered and left in its own thread: when the block
    ends well, it completes the output; when an exception leaves the block, the sink writes what is finished already and
    sees an exception too. A source or sink that does not return in time is left behind in its thread.

    Args:
        source: opened; its owner closes it, after the block.
        sink: not entered.
        pace: how fast.
        note: told of each frame that the sink took.
        now: a clock, in seconds.
    """

    def __init__(
        self, source: Source, sink: Sink, pace: Pace, note: Note, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._source, self._sink, self._note, self._now = source, sink, note, now
        newest_wins = pace == "live"
        self._decoded: FrameQueue[CapturedFrame] = FrameQueue(
            1 if newest_wins else DECODED_AHEAD, newest_wins=newest_wins
        )
        self._finished: FrameQueue[LeavingFrame] = FrameQueue(FINISHED_AHEAD)
        self._on_their_way: deque[float] = deque()
        self._stopping = threading.Event()
        # A live source keeps its own time; to be held to ours as well would only make it wait.
        self._clock = None if pace == "all" or source.is_live else SourceClock(self._stopping, now)
        self._reader = WorkerThread("the reader of the source", self._read, self._decoded.finish)
        self._writer = WorkerThread("the writer to the sink", self._write, self._stop)

    @property
    def dropped(self) -> int:
        """How many frames were there, and not taken because a newer one was."""
        return self._decoded.dropped

    def __enter__(self) -> PacedRun:
        self._writer.start()
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finished.finish()
                self._writer.join()
        finally:
            self._stop()
            self._writer.leave(WRITER_GRACE_SECONDS)
            self._reader.leave(READER_GRACE_SECONDS)
        if error is None or isinstance(error, QueueStopped):
            self._writer.raise_error()

    def frames(self) -> Iterator[SourceFrame]:
        """Yield what the stream is to take.

        Raises:
            SourceError: the source broke off; frames before that were yielded.
        """
        for captured in self._decoded:
            self._on_their_way.append(captured.captured_at)
            frame = captured.frame
            del captured
            yield frame
            del frame  # the stream keeps what it still needs
        self._reader.raise_error()

    def deliver(self, frame: FinishedFrame) -> None:
        """Hand a frame to the sink, waiting while it has enough of them.

        Raises:
            QueueStopped: the sink failed; leaving the block raises its error.
        """
        if not self._finished.put(LeavingFrame(frame, self._on_their_way.popleft())):
            raise QueueStopped

    def _read(self) -> None:
        for frame in self._source:
            if self._clock is not None:
                self._clock.hold(frame.time)
            if not self._decoded.put(CapturedFrame(frame, self._now())):
                break
            del frame

    def _write(self) -> None:
        with self._sink as sink:
            for leaving in self._finished:
                sink.write(leaving.frame)
                self._note(leaving.frame, (self._now() - leaving.captured_at) * 1000)

    def _stop(self) -> None:
        self._stopping.set()
        self._decoded.stop()
        self._finished.stop()
