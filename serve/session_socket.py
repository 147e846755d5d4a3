"""A session's WebSocket: messages both ways, JPEG pictures where WebRTC does not reach, and the session's life.

A binary message is a picture: 4 bytes of the frame's number, big-endian, then a JPEG file. Text is JSON.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from functools import partial
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.serve.errors import LineFullError, SessionError
from live2diff_trt.serve.hall import Hall
from live2diff_trt.serve.inbox import IncomingFrame
from live2diff_trt.serve.jpeg import decode_jpeg, encode_jpeg
from live2diff_trt.serve.messages import Done, Message, Problem, Shown, Welcome, from_visitor
from live2diff_trt.serve.outbox import Outbox
from live2diff_trt.serve.session import Session
from live2diff_trt.serve.token_bucket import TokenBucket
from live2diff_trt.serve.visitor_stream import OutgoingFrame

logger = logging.getLogger(__name__)

NUMBER = struct.Struct(">I")
REFUSED, BROKEN, BUSY = 1008, 1011, 1013
"""Why a WebSocket is closed: what the visitor did, what the server did, or that it should come back later."""
GOODBYE_SECONDS = 1.0


async def serve_session(socket: WebSocket, hall: Hall) -> None:
    """Serve one visitor from the handshake to the end, however it comes."""
    try:
        async with hall.open_session() as session:
            await SessionSocket(socket, session, hall).serve()
    except WebSocketDisconnect:
        logger.debug("a visitor left")
    except LineFullError as error:
        hall.metrics.sessions_refused.inc()
        await _say_goodbye(socket, error, BUSY)
    except SessionError as error:
        await _say_goodbye(socket, error, REFUSED)
    except Live2DiffError as error:
        logger.error("a session failed: %s", error)
        await _say_goodbye(socket, error, BROKEN)


class SessionSocket:
    """One accepted WebSocket."""

    def __init__(self, socket: WebSocket, session: Session, hall: Hall) -> None:
        self._socket, self._session, self._hall = socket, session, hall
        self._outbox = Outbox(hall.limits.frames_unseen)
        a_second = hall.limits.frames_per_second + hall.limits.controls_per_second
        self._message_rate = TokenBucket(a_second, 2 * a_second)

    async def serve(self) -> None:
        """Serve until one side ends it.

        Raises:
            WebSocketDisconnect: the visitor went.
            Live2DiffError: what ended the session.
        """
        self._outbox.put(Welcome(session=self._session.name, stream=self._hall.describe()))
        works = (self._session.run(self._tell_status), self._receive(), self._send(), self._tell_status_regularly())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _receive(self) -> None:
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", 1006))
            if not self._message_rate.take():
                raise SessionError("too many messages came at once", "Send fewer, and no more than you read")
            if received.get("bytes") is not None:
                await self._take_frame(received["bytes"])
            else:
                self._take_text(received.get("text") or "")

    async def _take_frame(self, data: bytes) -> None:
        if len(data) <= NUMBER.size:
            raise SessionError(f"a picture has {len(data)} bytes", "Send 4 bytes of its number, then a JPEG file")
        (number,) = NUMBER.unpack_from(data)
        if self._session.way == "webrtc":
            await self._hall.close_peer(self._session)
        self._session.show_by("websocket", self._show)
        decode = partial(decode_jpeg, data[NUMBER.size :], self._hall.limits.source_pixels)
        self._session.put_frame(IncomingFrame(decode, number, time.monotonic()))

    def _take_text(self, text: str) -> None:
        try:
            message = from_visitor.validate_json(text)
        except ValidationError as error:
            self._put(Problem(type="refused", problem=_describe(error), remedy="See docs/serve.md"))
            return
        if isinstance(message, Shown):
            self._outbox.note_shown(message.frame)
            return
        try:
            self._session.put_control(message, partial(self._reply, message.type))
        except SessionError as error:
            self._reply(message.type, error)

    def _reply(self, control: str, error: Live2DiffError | None) -> None:
        if error is None:
            self._put(Done(control=control))
        else:
            problem, remedy = error.problem, error.remedy
            self._put(Problem(type="refused", control=control, problem=problem, remedy=remedy))
        self._tell_status()

    def _put(self, message: Message) -> None:
        try:
            self._outbox.put(message)
        except SessionError as error:  # this may be a callback, which nobody would hear
            self._session.end(error)

    def _show(self, frame: OutgoingFrame) -> None:
        dropped = self._outbox.dropped
        self._outbox.put_frame(frame)
        if self._outbox.dropped > dropped:
            self._session.note_dropped()

    def _tell_status(self) -> None:
        self._outbox.put(self._session.status())

    async def _tell_status_regularly(self) -> None:
        while True:
            self._tell_status()
            await asyncio.sleep(self._hall.limits.status_seconds)

    async def _send(self) -> None:
        async for item in self._outbox:
            if isinstance(item, Message):
                await self._socket.send_text(item.model_dump_json())
            else:
                await self._send_picture(item)

    async def _send_picture(self, frame: OutgoingFrame) -> None:
        picture = await asyncio.to_thread(encode_jpeg, frame.image)
        await self._socket.send_bytes(NUMBER.pack(frame.number) + picture)
        self._session.note_sent(frame)


async def _say_goodbye(socket: WebSocket, error: Live2DiffError, code: int) -> None:
    """Tell a visitor why it is over; one who does not listen is not waited for."""
    farewell: Any = Problem(type="error", problem=error.problem, remedy=error.remedy).model_dump_json()
    try:
        await asyncio.wait_for(socket.send_text(farewell), GOODBYE_SECONDS)
        await asyncio.wait_for(socket.close(code), GOODBYE_SECONDS)
    except (asyncio.TimeoutError, RuntimeError, WebSocketDisconnect):  # it is gone already
        logger.debug("a visitor did not hear why the session is over")


def _describe(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place or 'the message'}: {first['msg']}"[:300]
