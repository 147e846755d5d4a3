"""Pipes: what is written is yuv4mpeg, what is read is any video that comes, and who goes away is noticed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.runtime.errors import SinkError, SourceError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.sink import PipeSink, VideoSink, open_sink
from live2diff_trt.runtime.source import PipeSource, TestPatternSource, open_source

RATE = Fraction(30000, 1001)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    with suppress(OSError):  # the test closed it
        os.close(ends[0])
    with suppress(OSError):
        os.close(ends[1])


def pattern(count: int, width: int = 96, height: int = 64) -> list[FinishedFrame]:
    with TestPatternSource(width, height, RATE, count) as source:
        return [FinishedFrame(frame.image, frame.time, index, 0.0) for index, frame in enumerate(source)]


def write_all(sink: PipeSink, frames: list[FinishedFrame], end: int) -> None:
    with sink:
        for frame in frames:
            sink.write(frame)
    os.close(end)


@pytest.mark.parametrize("size", [(96, 64), (128, 720)])
def test_frames_come_out_of_a_pipe_as_they_went_in(pipe: tuple[int, int], size: tuple[int, int]) -> None:
    reading, writing = pipe
    frames = pattern(12, *size)
    writer = threading.Thread(target=write_all, args=(PipeSink(*size, RATE, writing), frames, writing))
    writer.start()
    with PipeSource(reading) as source:
        assert (source.width, source.height, source.frame_rate) == (*size, RATE)
        assert (source.frame_count, source.audio_path, source.is_live) == (None, None, False)
        read = list(source)
    writer.join()
    assert [frame.time for frame in read] == [index / RATE for index in range(12)]
    errors = [np.abs(one.image.astype(int) - two.image).mean() for one, two in zip(frames, read, strict=True)]
    assert max(errors) < 6  # pixels share their colour with neighbours


@pytest.mark.parametrize("height", [64, 720])
def test_colours_are_those_that_players_show(pipe: tuple[int, int], height: int) -> None:
    reading, writing = pipe
    image = np.empty((height, 96, 3), np.uint8)
    image[:] = (220, 60, 30)
    frames = [FinishedFrame(image, Fraction(0), 0, 0.0)]
    writer = threading.Thread(target=write_all, args=(PipeSink(96, height, RATE, writing), frames, writing))
    writer.start()
    with PipeSource(reading) as source:
        (read,) = source
    writer.join(20)
    assert np.abs(read.image.astype(int) - image).max() < 4


def test_a_frame_is_on_its_way_as_soon_as_it_is_written(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with PipeSink(16, 16, RATE, writing) as sink:
        for frame in pattern(3, 16, 16):
            sink.write(frame)
            assert len(os.read(reading, 65536)) >= 16 * 16 * 3 // 2


def test_a_gap_in_the_times_is_no_gap_in_the_pipe(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    frames = pattern(6, 16, 16)
    write_all(PipeSink(16, 16, RATE, writing), [frames[0], frames[4], frames[5]], writing)
    with PipeSource(reading) as source:
        assert [frame.time for frame in source] == [index / RATE for index in range(3)]


def test_another_container_comes_through_a_pipe(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mkv", 96, 64, RATE) as sink:
        for frame in pattern(20):
            sink.write(frame)
    with (tmp_path / "out.mkv").open("rb") as file, PipeSource(file.fileno()) as source:
        assert len(list(source)) == 20


def test_who_reads_goes_away(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    with pytest.raises(SinkError, match=r"the pipe can't be written to: Broken pipe.*program that reads it ended"):
        write_all(PipeSink(96, 64, RATE, writing), pattern(3), writing)


@pytest.mark.parametrize("content", [b"", b"no video at all\n" * 100])
def test_a_pipe_without_video_is_refused(pipe: tuple[int, int], content: bytes) -> None:
    reading, writing = pipe
    os.write(writing, content)
    os.close(writing)
    with pytest.raises(SourceError, match=r"the pipe can't be opened: .*program before it"):
        PipeSource(reading)


def test_a_pipe_that_ends_within_a_frame_gives_those_before(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(
        writing, b"YUV4MPEG2 W16 H16 F25:1 Ip C420mpeg2\n" + 2 * (b"FRAME\n" + bytes(384)) + b"FRAME\n" + bytes(99)
    )
    os.close(writing)
    with PipeSource(reading) as source:
        assert len(list(source)) == 2


def test_nothing_is_written_where_no_frame_came(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    write_all(PipeSink(96, 64, RATE, writing), [], writing)
    assert os.read(reading, 100) == b""


def test_a_pipe_may_be_closed_while_it_is_read(pipe: tuple[int, int]) -> None:
    """The thread that waits for a frame closes it: FFmpeg is not taken away under its hands."""
    reading, writing = pipe
    sink = PipeSink(96, 64, RATE, writing)
    frames = pattern(9)
    with sink:
        for frame in frames[:2]:
            sink.write(frame)
        source = PipeSource(reading)
        waiting = threading.Event()
        read: list[Fraction] = []

        def read_all() -> None:
            for frame in source:
                read.append(frame.time)
                waiting.set()

        reader = threading.Thread(target=read_all)
        reader.start()
        assert waiting.wait(20)
        source.close()
        for frame in frames[2:5]:
            sink.write(frame)
        os.close(writing)
        sink._broken = True  # its file is closed: there is nothing to complete
        reader.join(20)
    assert not reader.is_alive()
    assert len(read) < 9
    assert list(source) == []


def test_terminals_are_refused() -> None:
    leader, follower = os.openpty()
    try:
        with pytest.raises(SinkError, match="a terminal does not show video"):
            PipeSink(96, 64, RATE, follower)
        with pytest.raises(SourceError, match="a terminal sends no video"):
            PipeSource(follower)
    finally:
        os.close(leader)
        os.close(follower)


def test_pipes_are_named_by_a_dash(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor <= 1)
    with pytest.raises(SourceError, match="a terminal sends no video"):
        open_source("-")
    with pytest.raises(SinkError, match="a terminal does not show video"):
        open_sink("-", width=96, height=64, frame_rate=RATE)
