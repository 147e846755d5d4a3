"""RTMP in: FFmpeg serves numbered pictures over loopback, and they are read in their order, each once."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import pytest

from live2diff_trt.runtime import source_address
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image, SourceFrame
from live2diff_trt.runtime.source import AddressSource, LiveSource, open_source
from live2diff_trt.runtime.source_live import BackOff

SENT = 80
"""Frames of a server. Those of about the first second are read to find out what comes, and not shown."""
KEY_FRAMES = 5
BITS = 8
Opened = TypeVar("Opened")
SERVER = f"""
import sys, time
from fractions import Fraction
import av, numpy as np
address, first = sys.argv[1], int(sys.argv[2])
# Only the muxer tee hands options on to the protocol of an output.
with av.open("[f=flv:listen=1:flvflags=no_duration_filesize:flush_packets=1]" + address, "w", format="tee") as sent:
    options = {{"tune": "zerolatency", "g": "{KEY_FRAMES}", "sc_threshold": "0", "bf": "0", "crf": "10"}}
    stream = sent.add_stream("libx264", rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = {16 * BITS}, 64, "yuv420p"
    for index in range({SENT}):
        bits = np.array([first + index >> bit & 1 for bit in range({BITS})], np.uint8)
        image = np.broadcast_to((bits * 160 + 40).repeat(16)[None, :, None], (64, {16 * BITS}, 3))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        sent.mux(stream.encode(frame))
        time.sleep(0.004)
    sys.stdin.read()  # silent from here on, until it is ended
"""


def number(image: Image) -> int:
    """Return what a picture shows in bars of 16 pixels, the lowest bit first."""
    bars = image.mean(axis=(0, 2)).reshape(BITS, 16)[:, 4:12].mean(axis=1)
    assert ((bars < 80) | (bars > 160)).all()
    return sum(int(bar > 120) << bit for bit, bar in enumerate(bars))


@contextmanager
def served(address: str, first: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve numbers from ``first`` on to one who connects."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, address, str(first)], stdin=subprocess.PIPE)
    try:
        yield server
    finally:
        server.kill()
        server.communicate(timeout=20)


@pytest.fixture
def address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"rtmp://127.0.0.1:{found.getsockname()[1]}/live/key"


def open_when_served(address: str, open_address: Callable[[str], Opened]) -> Opened:
    for _ in range(200):
        with suppress(SourceError):
            return open_address(address)
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


def read_up_to(frames: Iterator[SourceFrame], last: int) -> list[SourceFrame]:
    """Return frames until one shows ``last``."""
    found: list[SourceFrame] = []
    while not found or number(found[-1].image) != last:
        found.append(next(frames))
    return found


def assert_each_once(frames: list[SourceFrame], first: int) -> None:
    """They begin with a key frame of those that ``served`` sends, and none is missing from there to the last."""
    shown = [number(frame.image) for frame in frames]
    assert (shown[0] - first) % KEY_FRAMES == 0
    assert len(shown) >= SENT // 2
    assert shown == list(range(shown[0], first + SENT))
    gaps = {round(float(later.time - earlier.time), 3) for earlier, later in itertools.pairwise(frames)}
    assert gaps == {0.04}


def test_every_frame_of_a_server_comes_once_and_in_order(address: str) -> None:
    with served(address, 0), open_when_served(address, open_source) as source:
        assert isinstance(source, LiveSource)
        assert (source.is_live, source.frame_count, source.width, source.height) == (True, None, 16 * BITS, 64)
        frames = read_up_to(iter(source), SENT - 1)
        assert source.health.troubles() == {}
    assert_each_once(frames, 0)
    assert float(frames[0].time) == 0


@pytest.mark.parametrize("trouble", ["vanishes", "falls silent"])
def test_a_server_that_goes_away_and_comes_back_goes_on(
    address: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_address, "STALL_SECONDS", 1.0)
    with served(address, 0) as server:
        first = open_when_served(address, AddressSource)
        source = LiveSource(address, partial(AddressSource, address), first, back_off=BackOff(100, 0.1, 0.1))
        with source:
            before = read_up_to(iter(source), SENT - 1)
            if trouble == "vanishes":
                server.kill()
            with served(address, 100):
                after = read_up_to(iter(source), 100 + SENT - 1)
    assert_each_once(before, 0)
    assert_each_once(after, 100)
    assert after[0].time > before[-1].time
    stalls = {} if trouble == "vanishes" else {"stalls": 1}
    assert source.health.troubles() == {"reconnections": 1, **stalls}
