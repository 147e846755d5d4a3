"""One visitor's session: it waits for a seat, streams, and tells how it is. It lives as long as its WebSocket."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.serve.errors import SessionError, StreamBrokenError
from live2diff_trt.serve.inbox import IncomingFrame, Reply
from live2diff_trt.serve.lobby import Lobby
from live2diff_trt.serve.messages import Message, State, Status, Way
from live2diff_trt.serve.metrics import Metrics
from live2diff_trt.serve.recent_frames import RecentFrames
from live2diff_trt.serve.settings import Limits, ServeSettings
from live2diff_trt.serve.token_bucket import TokenBucket
from live2diff_trt.serve.visitor_stream import OutgoingFrame, VisitorStream

logger = logging.getLogger(__name__)

Show = Callable[[OutgoingFrame], None]


class Session:
    """For one event loop's thread; the stream has a thread of its own.

    Args:
        engine: that all sessions share.
        lobby: that gives the seat.
        metrics: that count.
        settings: what the stream begins with.
        limits: what the visitor may ask for.

    Attributes:
        name: that nobody guesses.
        place: in the line; 0: on a seat.
        way: by which pictures go out.
    """

    def __init__(
        self, engine: SharedEngine, lobby: Lobby, metrics: Metrics, settings: ServeSettings, limits: Limits
    ) -> None:
        self.name = secrets.token_urlsafe(16)
        self.place = 0
        self._engine, self._lobby, self._metrics = engine, lobby, metrics
        self._settings, self._limits = settings, limits
        self._loop = asyncio.get_running_loop()
        self._stream: VisitorStream | None = None
        self._ended = asyncio.Event()
        self._show: Show | None = None
        self.way: Way = "none"
        self._recent = RecentFrames()
        self._frames_out = self._dropped_on_the_way_out = self._dropped_over_rate = 0
        self._frame_rate = TokenBucket(limits.frames_per_second, limits.frames_per_second)
        self._control_rate = TokenBucket(limits.controls_per_second, limits.controls_per_second)
        self._last_frame_at = time.monotonic()
        self._error: Live2DiffError | None = None

    @property
    def is_seated(self) -> bool:
        """Whether frames are taken."""
        return self._stream is not None

    async def run(self, tell_change: Callable[[], None]) -> None:
        """Wait for a seat, and stream until ``end``, an error, or nothing comes any more.

        Args:
            tell_change: told of each new place in the line.

        Raises:
            LineFullError: if there is no place in the line.
            Live2DiffError: what ended the stream.
        """

        def tell_place(place: int) -> None:
            self.place = place
            tell_change()

        async with self._lobby.seat(tell_place):
            self._stream = stream = VisitorStream(
                self._engine, self._settings.prompt, self._settings.seed, self._pass_on, self._note_end
            )
            self._last_frame_at = time.monotonic()
            logger.info("session %s has a seat", self.name[:6])
            try:
                stream.start()
                await self._wait_for_end()
            finally:
                stream.end()
                await asyncio.shield(asyncio.to_thread(stream.leave))
                self._metrics.frames_damaged.inc(stream.frames_damaged)
        self._raise_error(stream.error)

    def end(self, error: Live2DiffError | None = None) -> None:
        """Let ``run`` return, or raise what the visitor is to be told."""
        self._error = self._error or error
        self._ended.set()

    def show_by(self, way: Way, show: Show) -> None:
        """Let pictures go out by a way from now on: the one by which the last frame or offer came."""
        self.way, self._show = way, show

    def put_frame(self, frame: IncomingFrame) -> None:
        """Take a frame, unless there is no seat yet, or too many come."""
        self._last_frame_at = time.monotonic()
        if self._stream is None:
            return
        self._metrics.frames_in.inc()
        before = self._dropped_on_the_way_in()
        if self._frame_rate.take():
            self._stream.put_frame(frame)
        else:
            self._dropped_over_rate += 1
        self._metrics.frames_dropped.inc(self._dropped_on_the_way_in() - before)

    def put_control(self, control: Message, reply: Reply) -> None:
        """Change the stream before its next frame.

        Args:
            control: what to change.
            reply: told, on the event loop, what was wrong with it, or None.

        Raises:
            SessionError: if there is no seat yet, or too many controls come.
        """
        if self._stream is None:
            raise SessionError("this session has no seat yet", "Wait until its place in the line is 0")

        def reply_on_loop(error: Live2DiffError | None) -> None:
            self._loop.call_soon_threadsafe(self._reply, reply, error)

        if not self._control_rate.take() or not self._stream.put_control(control, reply_on_loop):
            raise SessionError(
                f"more than {self._limits.controls_per_second} controls came in a second", "Send fewer, and wait"
            )

    def note_sent(self, frame: OutgoingFrame) -> None:
        """Count a picture that was given to the network."""
        latency = time.monotonic() - frame.came_at
        self._frames_out += 1
        self._recent.note(latency * 1000)
        self._metrics.frames_out.inc()
        self._metrics.latency.observe(latency)

    def note_dropped(self) -> None:
        """Count a picture that was not given to the network, because a newer one was there."""
        self._dropped_on_the_way_out += 1
        self._metrics.frames_dropped.inc()

    def frames_per_second(self) -> float:
        """Return how many pictures go out."""
        return self._recent.frames_per_second()

    def status(self) -> Status:
        """Return the session as it is now."""
        stream = self._stream
        return Status(
            state=self._state(),
            place=0 if self.is_seated else max(1, self.place),
            waiting=self._lobby.waiting,
            way=self.way,
            fps=round(self._recent.frames_per_second(), 1),
            latency_ms_p50=self._recent.percentile_ms(50),
            latency_ms_p99=self._recent.percentile_ms(99),
            frames_in=0 if stream is None else stream.frames_in + self._dropped_over_rate,
            frames_out=self._frames_out,
            frames_dropped=self._dropped_on_the_way_in() + self._dropped_on_the_way_out,
            frames_damaged=0 if stream is None else stream.frames_damaged,
            step_list=list(self._engine.spec.step_list if stream is None else stream.step_list),
            style=None if stream is None else stream.style,
        )

    def _dropped_on_the_way_in(self) -> int:
        return self._dropped_over_rate + (0 if self._stream is None else self._stream.frames_dropped)

    def _state(self) -> State:
        if self._error is not None:
            return "error"
        return "queued" if self._stream is None else self._stream.state

    async def _wait_for_end(self) -> None:
        """Wait for the end, or until no frame has come for so long that the seat is another's."""
        while not self._ended.is_set():
            idle = time.monotonic() - self._last_frame_at
            if idle >= self._limits.idle_seconds:
                self.end(SessionError(f"no frame came for {idle:.0f} s", "Open a session again when there is video"))
                break
            try:
                await asyncio.wait_for(self._ended.wait(), self._limits.idle_seconds - idle)
            except asyncio.TimeoutError:
                continue

    def _pass_on(self, frame: OutgoingFrame) -> None:
        """In the stream's thread: hand a picture to the event loop."""
        self._loop.call_soon_threadsafe(self._show_one, frame)

    def _show_one(self, frame: OutgoingFrame) -> None:
        if self._show is not None and not self._ended.is_set():
            self._show(frame)

    def _note_end(self) -> None:
        """In the stream's thread: it is over."""
        self._loop.call_soon_threadsafe(self._ended.set)

    def _reply(self, reply: Reply, error: Live2DiffError | None) -> None:
        (self._metrics.controls if error is None else self._metrics.controls_refused).inc()
        reply(error)

    def _raise_error(self, error: BaseException | None) -> None:
        if error is not None:
            self._metrics.sessions_failed.inc()
        if isinstance(error, Live2DiffError):
            raise error
        if error is not None:
            logger.error("the stream of session %s broke off", self.name[:6], exc_info=error)
            raise StreamBrokenError("the stream broke off by a fault of the server", "Look into its log") from error
        if self._error is not None:
            raise self._error
