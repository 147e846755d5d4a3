"""What all sessions of a server share, and which there are."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.serve.errors import LineFullError, OfferError, SessionError
from live2diff_trt.serve.lobby import Lobby, count_seats
from live2diff_trt.serve.messages import StreamDescription
from live2diff_trt.serve.metrics import Metrics
from live2diff_trt.serve.peer import Peer
from live2diff_trt.serve.session import Session
from live2diff_trt.serve.settings import Limits, ServeSettings
from live2diff_trt.serve.token_bucket import TokenBucket

logger = logging.getLogger(__name__)


class Hall:
    """For one event loop's thread.

    Args:
        engine: opened; its owner closes it.
        settings: of the server.
        limits: for each visitor.

    Attributes:
        lobby: that gives the seats.
        metrics: that count.

    Raises:
        DeviceMemoryError: if there is not enough memory for one session.
    """

    def __init__(self, engine: SharedEngine, settings: ServeSettings, limits: Limits) -> None:
        self.settings, self.limits = settings, limits
        self.metrics = Metrics()
        self.lobby = Lobby(count_seats(engine, settings.max_sessions), settings.max_waiting)
        self._engine = engine
        self._sessions: dict[str, Session] = {}
        self._peers: dict[str, Peer] = {}
        self._openings = TokenBucket(limits.sessions_per_minute / 60, limits.sessions_per_minute)
        self._watch()

    def describe(self) -> StreamDescription:
        """Return what a session would be."""
        spec = self._engine.spec
        return StreamDescription(
            width=spec.width,
            height=spec.height,
            step_list=list(spec.step_list),
            max_steps=self._engine.max_steps,
            timesteps=spec.schedule.original_steps,
            styles=list(self._engine.styles),
            prompt=self.settings.prompt,
            seed=self.settings.seed,
            webrtc=self.settings.webrtc,
            stun=list(self.settings.stun),
            seats=self.lobby.seats,
            seats_taken=self.lobby.taken,
            waiting=self.lobby.waiting,
        )

    def find(self, name: str) -> Session:
        """Return a session; raise SessionError if there is none of that name."""
        try:
            return self._sessions[name]
        except KeyError:
            raise SessionError("there is no such session", "Open one by the WebSocket /api/session") from None

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[Session]:
        """Make a session that others find while the block runs; what it has is freed at the end.

        Raises:
            LineFullError: if too many are opened.
        """
        if not self._openings.take():
            raise LineFullError("too many sessions are opened at once", "Try again in a minute")
        session = Session(self._engine, self.lobby, self.metrics, self.settings, self.limits)
        self._sessions[session.name] = session
        self.metrics.sessions_opened.inc()
        logger.info("session %s was opened; %d are there", session.name[:6], len(self._sessions))
        try:
            yield session
        finally:
            del self._sessions[session.name]
            await self.close_peer(session)
            logger.info("session %s is over; %d are there", session.name[:6], len(self._sessions))

    async def answer(self, session: Session, sdp: str) -> str:
        """Return the answer to a session's WebRTC offer; it takes the place of an earlier connection.

        Raises:
            OfferError: if the offer can't be answered.
            SessionError: if the session has no seat.
        """
        if not self.settings.webrtc:
            raise OfferError("this server has no WebRTC", "Send JPEG files by the session's WebSocket")
        if not session.is_seated:
            raise SessionError("this session has no seat yet", "Wait until its place in the line is 0")
        await self.close_peer(session)
        peer = self._peers[session.name] = Peer(session, self.settings.stun)
        try:
            answer = await peer.answer(sdp)
        except BaseException:
            await peer.close()
            raise
        if session.name not in self._sessions:  # it ended meanwhile
            await self.close_peer(session)
            raise SessionError("the session is over", "Open another one")
        return answer

    async def close_peer(self, session: Session) -> None:
        """Close a session's WebRTC connection, if it has one."""
        peer = self._peers.pop(session.name, None)
        if peer is not None:
            await peer.close()

    def end_all(self) -> None:
        """Tell every visitor that the server is going."""
        for session in self._sessions.values():
            session.end(SessionError("the server is being stopped", "Come back later"))

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch("sessions", "Sessions that are there", lambda: len(self._sessions))
        watch("seats", "Sessions that can stream at once", lambda: self.lobby.seats)
        watch("seats_taken", "Sessions that stream", lambda: self.lobby.taken)
        watch("waiting", "Sessions in the line", lambda: self.lobby.waiting)
        watch("webrtc_connections", "Open WebRTC connections", lambda: len(self._peers))
        watch("frames_per_second", "Pictures that go out", self._frames_per_second)
        watch("free_memory_bytes", "Free memory where streams keep their rings", self._engine.free_bytes)
        watch("session_memory_bytes", "Memory that one session takes", lambda: self._engine.stream_bytes)

    def _frames_per_second(self) -> float:
        return sum(session.frames_per_second() for session in self._sessions.values())
