"""A browser's side of WebRTC, by aiortc."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack, VideoStreamTrack
from av.video.frame import VideoFrame

from live2diff_trt.runtime.frame import Image


class OneColour(VideoStreamTrack):
    """A video of one colour, 30 frames a second."""

    def __init__(self, image: Image) -> None:
        super().__init__()
        self.image = image

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(self.image, format="rgb24")
        frame.pts, frame.time_base = pts, Fraction(time_base)
        return frame


class MadeUpPeer:
    """One connection; the pictures that came are kept."""

    def __init__(self, image: Image) -> None:
        self.source = OneColour(image)
        self.pictures: list[Image] = []
        self.has_ended = False
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connection.addTrack(self.source)
        self._connection.on("track", self._take)
        self._reading: asyncio.Task[None] | None = None

    async def offer(self) -> str:
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return str(self._connection.localDescription.sdp)

    async def accept(self, sdp: str) -> None:
        await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def wait_for_pictures(self, count: int) -> None:
        for _ in range(600):
            if len(self.pictures) >= count:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{len(self.pictures)} pictures came, not {count}")

    async def close(self) -> None:
        await self._connection.close()
        if self._reading is not None:
            await self._reading

    def _take(self, track: MediaStreamTrack) -> None:
        self._reading = asyncio.create_task(self._read(track))

    async def _read(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, VideoFrame)
                self.pictures.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
        except MediaStreamError:
            self.has_ended = True
