"""A server on a port of its own, over an engine that shows what it was told, and a visitor who talks to it."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import SimpleNamespace, TracebackType
from typing import Any

import httpx
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.prompt_blend import PromptBlend
from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.turns import Turns
from live2diff_trt.serve.jpeg import encode_jpeg
from live2diff_trt.serve.server import bind, make_server
from live2diff_trt.serve.settings import Limits, ServeSettings
from tests.runtime.plain_pipeline import PlainPipeline, plain_spec

NUMBER = struct.Struct(">I")


class PlainEngine:
    """Streams whose pictures are the frames as they came.

    Attributes:
        pipelines: of the streams that were opened, in order; their log says what they were told.
        styles: that visitors may choose from; their weights are never read.
        closed: how many were closed.
        error: what a stream's next frame raises, if anything.
    """

    def __init__(self, free: int = 1_000_000) -> None:
        self.spec = plain_spec(2)
        self.max_steps = 4
        self.styles: tuple[str, ...] = ("ink", "oil paint")
        self.stream_bytes = 1000
        self.free = free
        self.pipelines: list[ClosablePipeline] = []
        self.error: Exception | None = None
        self._turns = Turns()

    @property
    def closed(self) -> int:
        return sum(pipeline.is_closed for pipeline in self.pipelines)

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        pipeline = ClosablePipeline(self)
        self.pipelines.append(pipeline)
        stream = Stream(pipeline, seed=seed, styles=PlainStyles(self.styles))
        stream.set_prompt(prompt)
        return stream

    def free_bytes(self) -> int:
        return self.free

    def turn(self) -> AbstractContextManager[None]:
        return self._turns.take()

    def close(self) -> None:
        pass


class PlainStyles:
    """Weights that are their names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find(self, style: object) -> Any:
        if style is not None and style not in self._names:
            raise ControlError(f"there is no style {style!r}", "Choose another")
        return SimpleNamespace(identity=style or "")


class ClosablePipeline(PlainPipeline):
    """Knows whether it was closed, and may fail."""

    def __init__(self, engine: PlainEngine) -> None:
        super().__init__()
        self._engine = engine
        self.is_closed = False

    def gather(self, frame: int, image: Any) -> None:
        if self._engine.error is not None:
            raise self._engine.error
        super().gather(frame, image)

    def close(self) -> None:
        self.is_closed = True


class RunningServer:
    """A server in a thread of its own."""

    def __init__(self, engine: SharedEngine, settings: ServeSettings, limits: Limits) -> None:
        self._listening = bind(settings)
        self.port = self._listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._server = make_server(engine, settings, limits)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],), name="server")

    def __enter__(self) -> RunningServer:
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), "the server starts")
        assert self._server.started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._listening.close()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive(), "the server hangs"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address + path, timeout=30, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.address + path, json=body, timeout=30, **options)

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/healthz").json()
        return answer

    def metric(self, name: str) -> float:
        (line,) = [line for line in self.get("/metrics").text.splitlines() if line.startswith(f"live2diff_{name} ")]
        return float(line.split()[1])

    @contextmanager
    def visit(self, **options: Any) -> Iterator[Visitor]:
        with self.visit_unwelcomed(**options) as socket:
            yield Visitor(self, socket)

    def visit_unwelcomed(self, **options: Any) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}/api/session", max_size=None, max_queue=None, **options)


class Visitor:
    """One WebSocket session."""

    def __init__(self, server: RunningServer, socket: ClientConnection) -> None:
        self.server, self.socket = server, socket
        self.sent: dict[int, Image | bytes] = {}
        self._unseen: deque[tuple[int, bytes]] = deque()
        self.welcome = self.hear("welcome")
        self.name = self.welcome["session"]
        self._next = 0

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def receive(self, seconds: float = 10) -> dict[str, Any] | tuple[int, bytes]:
        data = self.socket.recv(timeout=seconds)
        if isinstance(data, str):
            message: dict[str, Any] = json.loads(data)
            return message
        return NUMBER.unpack_from(data)[0], data[NUMBER.size :]

    def hear(self, type: str, holds: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:  # noqa: A002
        """Return the next message of a type for which something holds; others are passed over, pictures kept."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            message = self.receive()
            if isinstance(message, tuple):
                self._unseen.append(message)
            elif message["type"] == type and holds(message):
                return message
        raise AssertionError(f"no {type} came")

    def hear_to_the_end(self) -> int | None:
        """Return the code with which the server closes the session."""
        with suppress(ConnectionClosed):
            while True:
                self.receive()
        return self.socket.close_code

    def wait_for_state(self, state: str) -> dict[str, Any]:
        return self.hear("status", lambda status: status["state"] == state)

    def send_frame(self, image: Image | bytes) -> int:
        data = image if isinstance(image, bytes) else encode_jpeg(image)
        number, self._next = self._next, self._next + 1
        self.sent[number] = image
        self.socket.send(NUMBER.pack(number) + data)
        return number

    def stream(self, image: Image) -> tuple[int, bytes]:
        """Send one picture again and again until any comes out; return that one's number and file."""
        for _ in range(400):
            self.send_frame(image)
            try:
                message = self._unseen.popleft() if self._unseen else self.receive(0.03)
            except TimeoutError:
                continue
            if isinstance(message, tuple):
                self.say(type="shown", frame=message[0])
                return message
            assert message["type"] != "error", message
        raise AssertionError("no picture came")


def picture(red: int = 200, green: int = 40, blue: int = 90, side: int = 64) -> Image:
    return np.full((side, side, 3), (red, green, blue), np.uint8)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait until something holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
