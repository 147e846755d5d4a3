"""Visitors of a served page, by WebSocket and JPEG: how many pictures a second each gets, and how late they are."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.serve.jpeg import encode_jpeg
from live2diff_trt.serve.session_socket import NUMBER

_PICTURES = 50
"""Different ones, that are sent again and again."""
_PATIENCE = 60.0
"""Seconds until a seat and a first picture must have come."""


@dataclass
class Visit:
    """What one visitor saw while all were there.

    Attributes:
        latencies_ms: of each picture that came, from the moment its frame was sent.
        sent: how many frames.
        seconds: how long.
    """

    latencies_ms: list[float] = field(default_factory=list)
    sent: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Pictures a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that so many percent do not exceed."""
        return float(np.percentile(self.latencies_ms, percent))


def visit_together(
    server: str, *, visitors: int, seconds: float, rate: float, size: tuple[int, int], token: str | None = None
) -> list[Visit]:
    """Visit a server several times at once; it is measured once every visitor has pictures.

    Args:
        server: its address, as ``http://127.0.0.1:8000``.
        visitors: each with a session of its own.
        seconds: of measuring.
        rate: frames that each sends a second.
        size: their width and height in pixels.
        token: that the server wants.

    Raises:
        MeasurementError: if a visitor got no seat or no pictures, or a session ended.
    """
    pictures = _make_pictures(*size)
    together = threading.Barrier(visitors)
    url = f"ws{server.removeprefix('http').rstrip('/')}/api/session"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def visit() -> Visit:
        try:
            with connect(url, max_size=None, additional_headers=headers) as socket:
                return _Visitor(socket, pictures, rate).measure(seconds, lambda: together.wait(_PATIENCE))
        except (OSError, WebSocketException, TimeoutError, threading.BrokenBarrierError) as error:
            together.abort()
            raise MeasurementError(
                f"a visit to {server} failed: {type(error).__name__} {error}".rstrip(),
                f"See that it runs, and has {visitors} seats: `live2diff-trt serve --max-sessions {visitors}`",
            ) from error

    with ThreadPoolExecutor(visitors, thread_name_prefix="measured") as pool:
        return [visiting.result() for visiting in [pool.submit(visit) for _ in range(visitors)]]


def _make_pictures(width: int, height: int) -> list[bytes]:
    with TestPatternSource(width, height) as source:
        return [encode_jpeg(frame.image) for frame in islice(source, _PICTURES)]


class _Visitor:
    """One session: sends frames at a rate, whatever comes back."""

    def __init__(self, socket: ClientConnection, pictures: Sequence[bytes], rate: float) -> None:
        self._socket, self._pictures, self._interval = socket, pictures, 1 / rate
        self._sent_at: dict[int, float] = {}
        self._numbers = count()

    def measure(self, seconds: float, wait_for_others: Callable[[], Any]) -> Visit:
        began = time.perf_counter()
        while not self._send_and_hear():
            if time.perf_counter() - began > _PATIENCE:
                raise TimeoutError(f"no picture came within {_PATIENCE:g} s")
        wait_for_others()
        visit, began = Visit(), time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            visit.latencies_ms += self._send_and_hear()
            visit.sent += 1
        visit.seconds = passed
        if not visit.latencies_ms:
            raise TimeoutError(f"no picture came within {seconds:g} s")
        return visit

    def _send_and_hear(self) -> list[float]:
        """Send a frame, and return the latencies of what comes until the next one is due."""
        number = next(self._numbers)
        self._sent_at[number] = began = time.perf_counter()
        self._socket.send(NUMBER.pack(number) + self._pictures[number % len(self._pictures)])
        latencies: list[float] = []
        with suppress(TimeoutError):
            while (left := began + self._interval - time.perf_counter()) > 0:
                latencies += self._hear(left)
        return latencies

    def _hear(self, seconds: float) -> list[float]:
        message = self._socket.recv(timeout=seconds)
        if isinstance(message, str):
            if json.loads(message)["type"] == "error":
                raise OSError(message)
            return []
        (number,) = NUMBER.unpack_from(message)
        latency = time.perf_counter() - self._sent_at[number]
        self._socket.send(json.dumps({"type": "shown", "frame": number}))
        for old in [one for one in self._sent_at if one < number]:
            del self._sent_at[old]
        return [latency * 1000]
