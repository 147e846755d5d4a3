"""What is sent over the network arrives: a transport stream over loopback, read while it is sent."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from fractions import Fraction

import numpy as np
import pytest

from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame, SourceFrame
from live2diff_trt.runtime.sink import NetworkSink, open_sink
from live2diff_trt.runtime.source import TestPatternSource, open_source
from tests.runtime.test_source_live import free_port

RATE = Fraction(25)


def test_a_transport_stream_arrives_over_udp() -> None:
    """Whoever comes later begins at the next key frame, and sees each frame at its distance from the last."""
    address, enough = f"udp://127.0.0.1:{free_port()}", threading.Event()

    def send() -> None:
        with NetworkSink(address, 96, 64, RATE) as sink:
            for index, frame in enumerate(TestPatternSource(96, 64, RATE)):
                if enough.wait(0.01):
                    return
                sink.write(FinishedFrame(frame.image, frame.time, index, 0.0))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    with open_source(address) as source:
        assert (source.width, source.height, source.is_live) == (96, 64, True)
        frames: list[SourceFrame] = list(itertools.islice(source, 60))
    enough.set()
    sender.join(20)
    gaps = [later.time - earlier.time for earlier, later in itertools.pairwise(frames)]
    assert float(np.median([float(gap) for gap in gaps])) == pytest.approx(0.04)
    assert all(gap > 0 for gap in gaps)
    shown = [frame.image.mean() for frame in frames]
    assert 40 < min(shown) <= max(shown) < 220


SERVER = """
import sys, av
with av.open(sys.argv[1], options={"listen": "1"}, timeout=20) as container:
    for frame in container.decode(video=0):
        print(round(frame.time, 3))
"""


def test_a_server_of_rtmp_gets_every_frame() -> None:
    """FFmpeg is the server: it listens for one who sends."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"rtmp://127.0.0.1:{found.getsockname()[1]}/live/key"
    server = subprocess.Popen([sys.executable, "-c", SERVER, address], stdout=subprocess.PIPE, text=True)
    with ExitStack() as stack:
        sink = enter_when_served(stack, address)
        for index, frame in enumerate(TestPatternSource(96, 64, RATE, 40)):
            sink.write(FinishedFrame(frame.image, frame.time, index, 0.0))
    times = [float(word) for word in server.communicate(timeout=20)[0].split()]
    assert [round(time - times[0], 3) for time in times] == [round(index * 0.04, 3) for index in range(40)]


def enter_when_served(stack: ExitStack, address: str) -> NetworkSink:
    for _ in range(100):
        with suppress(SinkError):
            return stack.enter_context(NetworkSink(address, 96, 64, RATE))
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


def test_a_frame_is_sent_as_soon_as_it_is_written() -> None:
    """Each is in a packet of its own once it is written: the encoder keeps none back."""
    port = free_port()
    packets: list[int] = []
    with NetworkSink(f"udp://127.0.0.1:{port}", 96, 64, RATE) as sink:
        mux = sink._container.mux
        for index, frame in enumerate(TestPatternSource(96, 64, RATE, 10)):
            encoded = sink._stream.encode(sink._pictures.turn(FinishedFrame(frame.image, frame.time, index, 0.0)))
            packets.append(len(encoded))
            mux(encoded)
    assert packets == [1] * 10


def test_servers_that_do_not_answer_and_schemes_that_are_missing() -> None:
    with pytest.raises(SinkError, match=r"rtmp://.* can't be sent to: Connection refused.*Check the address"):
        open_sink("rtmp://127.0.0.1:1/live/key", width=96, height=64, frame_rate=RATE).__enter__()
    with pytest.raises(
        SinkError, match=r"it is unknown how to send to ftp://.*Use an address that begins with rtmp://"
    ):
        open_sink("ftp://127.0.0.1/a", width=96, height=64, frame_rate=RATE)
    with pytest.raises(SinkError, match="Use an even width"):
        NetworkSink("udp://127.0.0.1:9", 97, 64, RATE)
