"""Live sources: real ones over loopback, and made-up ones that end, break off and come back."""

from __future__ import annotations

import itertools
import logging
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import pytest
from av.video.stream import VideoStream

from live2diff_trt.runtime import source_address
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import NewFrame, SourceFrame, empty_frame
from live2diff_trt.runtime.source import AddressSource, FileSource, TestPatternSource, open_source
from live2diff_trt.runtime.source_health import SourceHealth
from live2diff_trt.runtime.source_live import BackOff, LiveSource
from tests.runtime.made_up_ends import MadeUpSource, marked

AT_ONCE = BackOff(attempts=3, first_seconds=0, longest_seconds=0)


def write_transport_stream(path: Path, width: int, height: int, frames: int) -> bytes:
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "5"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(TestPatternSource(width, height, frame_count=frames)):
            picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path.read_bytes()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def sent(data: bytes, port: int, pause: threading.Event) -> Iterator[None]:
    """Send a transport stream over and over, about 25 frames a second, but not while ``pause`` is set."""
    ended = threading.Event()
    packets = [data[at : at + 1316] for at in range(0, len(data), 1316)]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in itertools.cycle(packets):
                if ended.wait(0.005):
                    return
                if not pause.is_set():
                    sender.sendto(packet, ("127.0.0.1", port))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


def open_sender(address: str) -> LiveSource:
    return LiveSource(address, partial(AddressSource, address), AddressSource(address), back_off=BackOff(20, 0.1, 0.1))


def assert_rising(frames: list[SourceFrame]) -> None:
    assert all(later.time > earlier.time for earlier, later in itertools.pairwise(frames))


def test_a_transport_stream_over_udp_stalls_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source_address, "STALL_SECONDS", 0.3)
    port, pause = free_port(), threading.Event()
    data = write_transport_stream(tmp_path / "sent.ts", 96, 64, 50)
    with (
        sent(data, port, pause),
        caplog.at_level(logging.WARNING),
        open_sender(f"udp://127.0.0.1:{port}") as source,
    ):
        assert (source.is_live, source.frame_count, source.width, source.height) == (True, None, 96, 64)
        frames = list(itertools.islice(source, 20))
        pause.set()
        threading.Timer(1.0, pause.clear).start()
        frames += itertools.islice(source, 60)
        assert source.health.stalls >= 1
        assert source.health.reconnections >= 1
    assert len(frames) == 80
    assert_rising(frames)
    assert "nothing comes from" in caplog.text
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}


def test_garbage_in_a_stream_is_survived_and_counted(tmp_path: Path) -> None:
    data = bytearray(write_transport_stream(tmp_path / "whole.ts", 96, 64, 100))
    chance = random.Random(1)
    for _ in range(40):
        at = chance.randrange(len(data) // 4, len(data) * 3 // 4)
        data[at : at + 50] = chance.randbytes(50)
    (tmp_path / "damaged.ts").write_bytes(data)
    with FileSource(tmp_path / "damaged.ts") as source:
        frames = list(source)
        assert source.health.damaged_frames + source.health.skipped_packets > 0
    assert 50 < len(frames) <= 100
    assert_rising(frames)


def test_a_change_of_size_is_survived_and_counted(tmp_path: Path) -> None:
    sizes = [(96, 64), (64, 96), (96, 64)]
    parts = [write_transport_stream(tmp_path / "part.ts", *size, 20) for size in sizes]
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    with FileSource(tmp_path / "all.ts") as source:
        frames = list(source)
        assert source.health.size_changes == 2
    shapes = [shape for shape, _ in itertools.groupby(frame.image.shape for frame in frames)]
    assert shapes == [(height, width, 3) for width, height in sizes]
    assert_rising(frames)


def test_what_nobody_sends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_address, "OPEN_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(SourceError, match=r"nothing came from udp://.* within 0.3 s"):
        open_source(f"udp://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
def test_a_server_that_does_not_answer_is_refused(scheme: str) -> None:
    with pytest.raises(SourceError, match=r"can't be opened: Connection refused.*Check the address"):
        open_source(f"{scheme}://127.0.0.1:1/live")


def test_a_scheme_that_ffmpeg_lacks_is_named() -> None:
    with pytest.raises(SourceError, match="this FFmpeg does not know nonsense: Protocol not found"):
        open_source("nonsense://127.0.0.1:1")


class Parts:
    """Opens one made-up source after the other; one that is an error can't be opened."""

    def __init__(self, *parts: MadeUpSource | SourceError) -> None:
        self.parts = list(parts)

    def __call__(self, new_frame: NewFrame, health: SourceHealth) -> MadeUpSource:
        part = self.parts.pop(0)
        if isinstance(part, SourceError):
            raise part
        part.new_frame = new_frame
        return part


def breaks(at: int) -> MadeUpSource:
    def before(index: int) -> None:
        if index == at:
            raise SourceError("the cable came off", "Plug it in")

    return MadeUpSource(before=before)


def live(
    parts: Parts, now: Callable[[], float] = lambda: 0.0, ends: bool = False, back_off: BackOff = AT_ONCE
) -> LiveSource:
    first = parts(empty_frame, SourceHealth())
    return LiveSource("the made-up source", parts, first, back_off=back_off, now=now, ends=ends)  # type: ignore[arg-type]


def gone() -> SourceError:
    return SourceError("nobody is there", "Wait")


def test_times_go_on_over_a_gap() -> None:
    clock = iter([0.0, 0.0, 0.0, 2.5, *[9.0] * 9])
    with live(Parts(breaks(2), breaks(3), gone(), gone(), gone()), lambda: next(clock)) as source:
        frames = list(itertools.islice(source, 5))
    assert [marked(frame.image) for frame in frames] == [0, 1, 0, 1, 2]
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.04, 2.54, 2.58, 2.62])
    assert source.health.reconnections == 1


def test_attempts_begin_anew_once_it_is_back() -> None:
    tries: list[MadeUpSource | SourceError] = [
        breaks(1),
        gone(),
        gone(),
        breaks(1),
        gone(),
        gone(),
        breaks(1),
        gone(),
        gone(),
        gone(),
    ]
    with live(Parts(*tries)) as source:
        frames = itertools.chain.from_iterable([source])
        assert [marked(next(frames).image) for _ in range(3)] == [0, 0, 0]
        with pytest.raises(SourceError, match="the cable came off"):
            next(frames)
    assert source.health.troubles() == {"reconnections": 2}


def test_an_end_is_waited_out_and_then_an_end() -> None:
    with live(Parts(MadeUpSource(2), MadeUpSource(1), gone(), gone(), gone())) as source:
        assert len(list(source)) == 3


def test_an_end_is_an_end_where_it_is_one_and_a_break_is_not() -> None:
    with live(Parts(breaks(2), MadeUpSource(3)), ends=True) as source:
        assert len(list(source)) == 5


def test_to_close_it_ends_the_wait() -> None:
    source = live(Parts(MadeUpSource(1)), back_off=BackOff(5, 1000, 1000))
    threading.Timer(0.1, source.close).start()
    assert len(list(source)) == 1


def test_waits_grow_up_to_a_limit() -> None:
    assert list(BackOff(6, 0.5, 4).waits()) == [0.5, 1, 2, 4, 4, 4]
    with pytest.raises(SourceError, match="no way to come back"):
        BackOff(first_seconds=3, longest_seconds=1)
