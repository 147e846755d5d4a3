"""RTMP in: FFmpeg serves numbered pictures over loopback, and they are read in their order, each once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import pytest

from live2diff_trt.runtime import source_address
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.source import AddressSource, LiveSource, open_source
from live2diff_trt.runtime.source_live import BackOff
from tests.runtime.numbered_pictures import HEIGHT, SENT, WIDTH, assert_each_once, read_up_to, served

Opened = TypeVar("Opened")
# Only the muxer tee hands options on to the protocol of an output.
LISTENING = "[f=flv:listen=1:flvflags=no_duration_filesize:flush_packets=1]"


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


def test_every_frame_of_a_server_comes_once_and_in_order(address: str) -> None:
    with served(LISTENING + address, "tee", 0), open_when_served(address, open_source) as source:
        assert isinstance(source, LiveSource)
        assert (source.is_live, source.frame_count, source.width, source.height) == (True, None, WIDTH, HEIGHT)
        frames = read_up_to(iter(source), SENT - 1)
        assert source.health.troubles() == {}
    assert_each_once(frames, 0)
    assert float(frames[0].time) == 0


@pytest.mark.parametrize("trouble", ["vanishes", "falls silent"])
def test_a_server_that_goes_away_and_comes_back_goes_on(
    address: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_address, "STALL_SECONDS", 1.0)
    with served(LISTENING + address, "tee", 0) as server:
        first = open_when_served(address, AddressSource)
        source = LiveSource(address, partial(AddressSource, address), first, back_off=BackOff(100, 0.1, 0.1))
        with source:
            before = read_up_to(iter(source), SENT - 1)
            if trouble == "vanishes":
                server.kill()
            with served(LISTENING + address, "tee", 100):
                after = read_up_to(iter(source), 100 + SENT - 1)
    assert_each_once(before, 0)
    assert_each_once(after, 100)
    assert after[0].time > before[-1].time
    stalls = {} if trouble == "vanishes" else {"stalls": 1}
    assert source.health.troubles() == {"reconnections": 1, **stalls}
