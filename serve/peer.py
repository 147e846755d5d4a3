"""A visitor's WebRTC connection: video comes in, changed video goes out."""

from __future__ import annotations

import asyncio
import logging
import time
from fractions import Fraction
from functools import partial

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.video.frame import VideoFrame

from live2diff_trt.serve.errors import OfferError
from live2diff_trt.serve.inbox import IncomingFrame
from live2diff_trt.serve.jpeg import as_rgb
from live2diff_trt.serve.session import Session
from live2diff_trt.serve.visitor_stream import OutgoingFrame

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
CLOCK = 90_000
"""Of video over RTP, in Hz."""
# What aiortc's parser raises where a description is none, beside its own errors.
_MALFORMED = (
    ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError,
    InvalidAccessError, InvalidStateError, OperationError,
)  # fmt: skip


class ShownTrack(MediaStreamTrack):
    """Pictures on their way out; of those that wait the newest.

    Args:
        session: that counts them.
    """

    kind = "video"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._frame: OutgoingFrame | None = None
        self._changed = asyncio.Event()
        self._last_pts = -1

    def show(self, frame: OutgoingFrame) -> None:
        """Replace the picture that waits, if one does."""
        if self._frame is not None:
            self._session.note_dropped()
        self._frame = frame
        self._changed.set()

    def stop(self) -> None:
        """End the track; who waits for a picture is told."""
        super().stop()
        self._changed.set()

    async def recv(self) -> VideoFrame:
        """Return the next picture, once there is one; aiortc calls this.

        Raises:
            MediaStreamError: after ``stop``.
        """
        while self._frame is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._changed.clear()
            await self._changed.wait()
        frame, self._frame = self._frame, None
        self._session.note_sent(frame)
        return self._as_video(frame)

    def _as_video(self, frame: OutgoingFrame) -> VideoFrame:
        picture = VideoFrame.from_ndarray(frame.image, format="rgb24")
        self._last_pts = max(self._last_pts + 1, round(frame.time * CLOCK))  # RTP's time must rise
        picture.pts, picture.time_base = self._last_pts, Fraction(1, CLOCK)
        return picture


class Peer:
    """One connection, from its offer to its end.

    Args:
        session: whose video it carries.
        stun: addresses of STUN servers.
    """

    def __init__(self, session: Session, stun: tuple[str, ...]) -> None:
        servers = [RTCIceServer(urls=[address]) for address in stun]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._session = session
        self._out = ShownTrack(session)
        self._reading: list[asyncio.Task[None]] = []
        self._connection.on("track", self._take_track)

    async def answer(self, sdp: str) -> str:
        """Return the answer to an offer.

        Raises:
            OfferError: if the offer is none, or has no video.
        """
        try:
            return await asyncio.wait_for(self._negotiate(sdp), ANSWER_SECONDS)
        except asyncio.TimeoutError as error:
            raise OfferError("the offer could not be answered in time", "Try again, or use the WebSocket") from error
        except _MALFORMED as error:
            logger.debug("an offer was refused: %r", error)
            raise OfferError(
                "that is no offer of a video", "Send what RTCPeerConnection.createOffer gives, with one video in it"
            ) from error

    async def close(self) -> None:
        """Let go of the connection; closing twice is harmless."""
        self._out.stop()
        await self._connection.close()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def _negotiate(self, sdp: str) -> str:
        await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        if not self._reading:
            raise OfferError("the offer has no video in it", "Add the camera's track before the offer is made")
        self._connection.addTrack(self._out)
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        self._session.show_by("webrtc", self._out.show)
        return str(self._connection.localDescription.sdp)

    def _take_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video" and not self._reading:
            self._reading.append(asyncio.create_task(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        number = 0
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, VideoFrame):
                self._session.put_frame(IncomingFrame(partial(as_rgb, frame), number, time.monotonic()))
            number += 1
