"""SRT in and out: numbered pictures over loopback, in their order, each once. PyAV's wheels know no SRT."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
import time
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import av
import av.error
import pytest

from live2diff_trt.runtime import source_address
from live2diff_trt.runtime.errors import SinkError, SourceError
from live2diff_trt.runtime.frame import FinishedFrame, Image, NewFrame, empty_frame
from live2diff_trt.runtime.sink import NetworkSink
from live2diff_trt.runtime.sink_network import held_back_seconds
from live2diff_trt.runtime.source import AddressSource, LiveSource, open_source
from live2diff_trt.runtime.source_health import SourceHealth
from live2diff_trt.runtime.source_live import BackOff
from tests.runtime.numbered_pictures import (
    HEIGHT,
    SENT,
    WIDTH,
    assert_each_once,
    number,
    numbered,
    read_up_to,
    served,
)
from tests.runtime.test_source_live import free_port

RATE = Fraction(25)
AT_ONCE = BackOff(5, 0.1, 0.1)
NO_DROPS = "tlpktdrop=0"  # else what a busy machine hands on too late is dropped
WITHOUT_END = SENT - 2
"""In a transport stream a packet and a picture end where the next one begins: FFmpeg gives the last two pictures when
more comes, or the connection ends."""


def knows_srt() -> bool:
    try:
        av.open("srt://127.0.0.1")  # for want of a port it is refused at once
    except av.error.ProtocolNotFoundError:
        return False
    except av.error.FFmpegError:
        return True
    raise AssertionError("an address without a port was opened")


SRT = knows_srt()
needs_srt = pytest.mark.skipif(not SRT, reason="the FFmpeg of this PyAV was built without SRT")


@pytest.fixture
def address() -> str:
    gc.collect()  # a broken connection of the test before is closed now, not in the midst of this one
    return f"srt://127.0.0.1:{free_port()}?{NO_DROPS}"


def port_of(address: str) -> int:
    return urlsplit(address).port or 0


def wait_for_listener(address: str) -> None:
    """Return once somebody has the address's port: who calls too early waits long, and holds up all other threads."""
    for _ in range(1000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", port_of(address)))
            probe.settimeout(0.02)
            try:
                probe.send(b"?")
                probe.recv(1)
            except ConnectionRefusedError:
                time.sleep(0.02)
            except TimeoutError:
                return
    raise AssertionError("nobody listens")


def send_by_sink(address: str, first: int, pause_seconds: float = 0.01, count: int = SENT) -> None:
    """Send numbers from ``first`` on, as many as ``served`` does."""
    wait_for_listener(address)
    with NetworkSink(address, WIDTH, HEIGHT, RATE) as sink:
        for index in range(count):
            sink.write(FinishedFrame(numbered(first + index), index / RATE, index, 0.0))
            time.sleep(pause_seconds)


class Listener:
    """FFmpeg listens, and decodes what one caller sends until he leaves.

    Args:
        address: where.
        patience: how many frames to take before leaving first.

    Attributes:
        shown: the numbers, in their order.
        times: of the frames, in seconds.
    """

    def __init__(self, address: str, patience: int | None = None) -> None:
        self.shown: list[int] = []
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._read, args=(address, patience), daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _read(self, address: str, patience: int | None) -> None:
        # Who leaves is an error of the connection: SRT has no other end.
        with suppress(av.error.FFmpegError), av.open(f"{address}&mode=listener", timeout=20) as container:
            for frame in itertools.islice(container.decode(video=0), patience):
                assert frame.time is not None
                self.times.append(frame.time)
                self.shown.append(number(cast(Image, frame.to_ndarray(format="rgb24"))))


@needs_srt
@pytest.mark.parametrize("pause_seconds", [0.0, 0.01])
def test_a_listener_gets_every_frame_to_the_last(address: str, pause_seconds: float) -> None:
    listener = Listener(address)
    send_by_sink(address, 0, pause_seconds)
    listener.join()
    assert listener.shown == list(range(SENT))
    gaps = [round(later - earlier, 3) for earlier, later in itertools.pairwise(listener.times)]
    assert set(gaps) == {0.04}


@needs_srt
def test_a_listener_that_leaves_is_an_error(address: str) -> None:
    listener = Listener(address, patience=20)
    with pytest.raises(SinkError, match=r"srt://.* can't be sent to: .*Check the address"):
        send_by_sink(address, 0, count=2000)
    listener.join()
    assert listener.shown == list(range(20))


@needs_srt
def test_every_frame_of_a_server_comes_once_and_in_order(address: str) -> None:
    with served(f"{address}&mode=listener", "mpegts", 0):
        wait_for_listener(address)
        with open_source(address) as source:
            assert isinstance(source, LiveSource)
            assert (source.is_live, source.frame_count, source.width, source.height) == (True, None, WIDTH, HEIGHT)
            frames = read_up_to(iter(source), WITHOUT_END - 1)
            assert source.health.troubles() == {}
    assert_each_once(frames, 0, WITHOUT_END)
    assert float(frames[0].time) == 0


@needs_srt
@pytest.mark.parametrize("trouble", ["leaves", "vanishes"])
def test_a_server_that_goes_away_and_comes_back_goes_on(
    address: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves says so; of who vanishes, as who falls silent, nothing comes any more."""
    monkeypatch.setattr(source_address, "STALL_SECONDS", 2.0)
    listening = f"{address}&mode=listener"
    with ExitStack() as stack:
        server = stack.enter_context(served(listening, "mpegts", 0))

        def replace_server() -> None:
            if trouble == "leaves":
                assert server.stdin is not None
                server.stdin.close()
            else:
                server.kill()
            server.wait(20)
            stack.enter_context(served(listening, "mpegts", 100))

        wait_for_listener(address)
        first = AddressSource(address)
        source = stack.enter_context(LiveSource(address, partial(AddressSource, address), first, back_off=AT_ONCE))
        before = read_up_to(iter(source), WITHOUT_END - 1)
        threading.Thread(target=replace_server, daemon=True).start()
        before += read_up_to(iter(source), SENT - 1)
        after = read_up_to(iter(source), 100 + WITHOUT_END - 1)
    assert_each_once(before, 0)
    assert_each_once(after, 100, WITHOUT_END)
    assert after[0].time > before[-1].time
    stalls = {} if trouble == "leaves" else {"stalls": 1}
    assert source.health.troubles() == {"reconnections": 1, **stalls}


@needs_srt
def test_a_source_that_listens_takes_one_sink_after_the_other(address: str) -> None:
    """None of the last frames is missing, though each sink leaves as soon as it may."""
    callers = [threading.Thread(target=send_by_sink, args=(address, first), daemon=True) for first in (0, 100)]
    waiting = iter(callers)

    def listen(new_frame: NewFrame, health: SourceHealth) -> AddressSource:
        next(waiting).start()
        return AddressSource(f"{address}&mode=listener", new_frame, health)

    with LiveSource(address, listen, listen(empty_frame, SourceHealth()), back_off=AT_ONCE) as source:
        before = read_up_to(iter(source), SENT - 1)
        after = read_up_to(iter(source), 100 + SENT - 1)
    for caller in callers:
        caller.join(20)
    for frames, sent in ((before, 0), (after, 100)):
        shown = [number(frame.image) for frame in frames]
        assert len(shown) >= 25
        assert shown == list(range(shown[0], sent + SENT))
    assert source.health.troubles() == {"reconnections": 1}


@needs_srt
def test_who_does_not_answer_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"{address}&connect_timeout=100"
    with pytest.raises(SinkError, match=r"srt://.* can't be sent to: .*Check the address"):
        NetworkSink(nobody, WIDTH, HEIGHT, RATE).__enter__()
    with pytest.raises(SourceError, match=r"srt://.* can't be opened: .*Check the address"):
        open_source(nobody)
    monkeypatch.setattr(source_address, "OPEN_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(SourceError, match=r"nothing came from srt://.* within 0.3 s"):
        open_source(f"{address}&mode=listener")


@pytest.mark.skipif(SRT, reason="the FFmpeg of this PyAV knows SRT")
def test_an_ffmpeg_without_srt_is_named(address: str) -> None:
    with pytest.raises(SinkError, match=r"this FFmpeg does not know srt: .*Install PyAV on an FFmpeg that does"):
        NetworkSink(address, WIDTH, HEIGHT, RATE).__enter__()
    with pytest.raises(SourceError, match=r"this FFmpeg does not know srt: .*Install PyAV on an FFmpeg that does"):
        open_source(address)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("srt://host:5000", 0.37),
        ("srt://host:5000?latency=20000", 0.37),
        ("srt://host:5000?pkt_size=1316&latency=2000000", 2.25),
        ("udp://host:5000?latency=2000000", 0.0),
    ],
)
def test_a_connection_stays_for_the_latency(given: str, seconds: float) -> None:
    assert held_back_seconds(given) == pytest.approx(seconds)
