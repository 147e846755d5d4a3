"""Sources and sinks that do what a test says: frames that tell which they are, waits, failures."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from live2diff_trt.runtime.frame import FinishedFrame, Image, NewFrame, SourceFrame, empty_frame
from live2diff_trt.runtime.source_health import SourceHealth

RATE = Fraction(25)
Before = Callable[[int], None]


def mark(image: Image, index: int) -> None:
    """Draw a number."""
    image[:] = (index % 251, index // 251, 7)


def marked(image: Image) -> int:
    """Return the number, after making sure that all of the picture shows it."""
    first = image[0, 0]
    assert (image == first).all()
    assert first[2] == 7
    return int(first[0]) + int(first[1]) * 251


def nothing(_: int) -> None:
    pass


class MadeUpSource:
    """Frame n shows n, at n / frame_rate.

    Attributes:
        frame_count: where it ends; None: nowhere.
        before: called before each frame is made.
    """

    audio_path: Path | None = None
    width, height = 32, 16

    def __init__(
        self,
        frame_count: int | None = None,
        before: Before = nothing,
        *,
        is_live: bool = False,
        new_frame: NewFrame = empty_frame,
        frame_rate: Fraction = RATE,
    ) -> None:
        self.frame_count, self.before, self.is_live = frame_count, before, is_live
        self.frame_rate = frame_rate
        self.new_frame: NewFrame = new_frame
        self.closed = False
        self.health = SourceHealth()

    def __enter__(self) -> MadeUpSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[SourceFrame]:
        for index in itertools.count() if self.frame_count is None else range(self.frame_count):
            self.before(index)
            image = self.new_frame(self.height, self.width)
            mark(image, index)
            yield SourceFrame(image, index / self.frame_rate)
            del image

    def close(self) -> None:
        self.closed = True


@dataclass
class MadeUpSink:
    """Keeps what the pictures show.

    Attributes:
        before: called before each frame is taken, with the number of those before it.
        shown: numbers that pictures showed, in order.
        times: of the frames.
        left_with: what left the block: an exception's kind, or None; empty while in the block.
        thread: in which it was entered.
    """

    before: Before = nothing
    shown: list[int] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)
    left_with: list[type[BaseException] | None] = field(default_factory=list)
    thread: threading.Thread | None = None

    def __enter__(self) -> MadeUpSink:
        self.thread = threading.current_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert threading.current_thread() is self.thread
        self.left_with.append(kind)

    def write(self, frame: FinishedFrame) -> None:
        assert threading.current_thread() is self.thread
        self.before(len(self.shown))
        self.shown.append(marked(frame.image))
        self.times.append(frame.time)


class KeepingSink:
    """Keeps frames as they come."""

    def __init__(self) -> None:
        self.frames: list[FinishedFrame] = []

    def __enter__(self) -> KeepingSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write(self, frame: FinishedFrame) -> None:
        self.frames.append(frame)
