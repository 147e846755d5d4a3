"""Pictures that show a number, a server that sends them in another process, and what must come of them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import av.error
import numpy as np
from av.video.stream import VideoStream

from live2diff_trt.runtime.frame import Image, SourceFrame

SENT = 80
"""Frames of a server. Those of about the first second are read to find out what comes, and not shown."""
KEY_FRAMES = 5
BITS = 8
WIDTH, HEIGHT = 16 * BITS, 64


def numbered(index: int) -> Image:
    """Return a picture that shows a number in bars of 16 pixels, the lowest bit first."""
    bits = np.array([index >> bit & 1 for bit in range(BITS)], np.uint8)
    return np.ascontiguousarray(np.broadcast_to((bits * 160 + 40).repeat(16)[None, :, None], (HEIGHT, WIDTH, 3)))


def number(image: Image) -> int:
    """Return what a picture shows."""
    bars = image.mean(axis=(0, 2)).reshape(BITS, 16)[:, 4:12].mean(axis=1)
    assert ((bars < 80) | (bars > 160)).all(), bars
    return sum(int(bar > 120) << bit for bit, bar in enumerate(bars))


def send_numbers(output: str, form: str, first: int) -> None:
    """Send numbers from ``first`` on, faster than they would be shown, and then nothing until standard input ends."""
    with av.open(output, "w", format=form, container_options={"flush_packets": "1"}) as sent:
        options = {"tune": "zerolatency", "g": str(KEY_FRAMES), "sc_threshold": "0", "bf": "0", "crf": "10"}
        stream = sent.add_stream("libx264", rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(SENT):
            frame = av.VideoFrame.from_ndarray(numbered(first + index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            sent.mux(stream.encode(frame))
            time.sleep(0.004)
        sys.stdin.read()


@contextmanager
def served(output: str, form: str, first: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``send_numbers`` in a process of its own, again if it breaks off, and kill it at the end."""
    command = [sys.executable, __file__, output, form, str(first)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        try:
            yield server
        finally:
            server.kill()


def read_up_to(frames: Iterator[SourceFrame], last: int) -> list[SourceFrame]:
    """Return frames until one shows ``last``."""
    found: list[SourceFrame] = []
    while not found or number(found[-1].image) != last:
        found.append(next(frames))
    return found


def assert_each_once(frames: list[SourceFrame], first: int, sent: int = SENT) -> None:
    """They begin with a key frame of those that ``served`` sends, and none is missing from there to the last."""
    shown = [number(frame.image) for frame in frames]
    assert (shown[0] - first) % KEY_FRAMES == 0, shown
    assert len(shown) >= SENT // 2, shown
    assert shown == list(range(shown[0], first + sent)), shown
    gaps = {round(float(later.time - earlier.time), 3) for earlier, later in itertools.pairwise(frames)}
    assert gaps == {0.04}, gaps


if __name__ == "__main__":
    for _ in range(10):  # who called may have given up meanwhile, and calls again
        with suppress(av.error.FFmpegError):
            send_numbers(sys.argv[1], sys.argv[2], int(sys.argv[3]))
            break
