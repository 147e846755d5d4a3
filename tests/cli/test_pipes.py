"""A chain of programs, each in a process of its own, and frames in the pipes between them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

WRITER = """
from fractions import Fraction
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.sink import open_sink
from live2diff_trt.runtime.source import TestPatternSource
source = TestPatternSource(96, 64, Fraction(30), {frames})
with open_sink("-", width=96, height=64, frame_rate=source.frame_rate) as sink:
    for index, frame in enumerate(source):
        sink.write(FinishedFrame(frame.image, frame.time, index, 0.0))
"""
READER = """
import av
with av.open("pipe:0", format="yuv4mpegpipe") as container:
    stream = container.streams.video[0]
    for index, frame in enumerate(container.decode(stream)):
        print(frame.width, frame.height, stream.average_rate, round(float(frame.to_ndarray(format="rgb24").std())))
"""
RUN = "from live2diff_trt.cli.main import main; main()"


def python(code: str, *words: object, **pipes: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], env=environment, **pipes)  # type: ignore[call-overload]


def test_frames_go_through_a_chain(tiny_bundle: Path) -> None:
    writer = python(WRITER.format(frames=25), stdout=subprocess.PIPE)
    words = ["run", tiny_bundle, "-i", "-", "-o", "-"]
    run = python(RUN, *words, stdin=writer.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader = python(READER, stdin=run.stdout, stdout=subprocess.PIPE)
    for end in (writer.stdout, run.stdout):
        assert end is not None
        end.close()  # else its reader's end would go unnoticed
    shown = reader.communicate(timeout=120)[0].decode().splitlines()
    told = run.communicate(timeout=60)[1].decode()
    assert (writer.wait(60), run.returncode, reader.returncode) == (0, 0, 0), told
    assert len(shown) == 25
    assert {tuple(line.split()[:3]) for line in shown} == {("64", "64", "30")}
    assert np.mean([int(line.split()[3]) for line in shown]) > 1
    assert "throughput" in told


def test_the_end_of_who_reads_ends_the_run(tiny_bundle: Path) -> None:
    run = python(
        RUN, "run", tiny_bundle, "-i", "test-pattern", "-o", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert run.stdout is not None
    assert run.stdout.read(9) == b"YUV4MPEG2"
    run.stdout.close()
    assert run.stderr is not None
    told = run.stderr.read().decode()
    assert run.wait(60) == 1
    assert "the pipe can't be written to" in told
    assert "Traceback" not in told


def test_a_chain_ends_though_more_would_come(tiny_bundle: Path) -> None:
    """``--frames`` is enough: who writes into the pipe has not ended."""
    run = python(
        RUN,
        "run",
        tiny_bundle,
        "-i",
        "-",
        "--frames",
        12,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    writer = python(WRITER.format(frames=14), stdout=run.stdin)
    assert writer.wait(60) == 0
    assert run.stdout is not None
    assert run.wait(60) == 0
    told = run.stdout.read()
    assert b"frames" in told
    assert run.stdin is not None
    run.stdin.close()
