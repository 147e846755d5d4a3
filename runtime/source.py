"""Where frames come from: the protocol, and how a source is named on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol

from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import NewFrame, SourceFrame
from live2diff_trt.runtime.source_address import FILE_SCHEMES, AddressSource, scheme_of
from live2diff_trt.runtime.source_files import CameraSource, FileSource, FolderSource, PipeSource
from live2diff_trt.runtime.source_health import SourceHealth
from live2diff_trt.runtime.source_live import LiveSource
from live2diff_trt.runtime.source_pattern import TestPatternSource

__all__ = [
    "AddressSource",
    "CameraSource",
    "FileSource",
    "FolderSource",
    "LiveSource",
    "PipeSource",
    "Source",
    "TestPatternSource",
    "open_source",
]

_PATTERN_FORM = re.compile(
    r"test-pattern(?::(?=.)(?:(?P<width>\d+)x(?P<height>\d+))?(?:@(?P<rate>\d+(?:[./]\d+)?))?(?:,(?P<frames>\d+))?)?"
)


class Source(Protocol):
    """Frames with their presentation times. Opened when constructed, closed on leaving the ``with`` block.

    It is read once, in order; times strictly rise. Frames may change size on the way.

    Attributes:
        frame_rate: average, in frames per second.
        width, height: size of the first upright frame, in pixels.
        frame_count: as the container tells it, None if it does not or if there is no end.
        audio_path: the file whose audio belongs to these frames, None without one.
        is_live: whether frames come at a time of their own, and are missed by who is late.
        new_frame: where frames go that are read from here on; may be set, as to a stream's ``empty_frame``. Ordinary
            memory at first.
        health: what went wrong and was survived.
    """

    new_frame: NewFrame
    health: SourceHealth

    @property
    def frame_rate(self) -> Fraction: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def frame_count(self) -> int | None: ...  # noqa: D102
    @property
    def audio_path(self) -> Path | None: ...  # noqa: D102
    @property
    def is_live(self) -> bool: ...  # noqa: D102

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[SourceFrame]: ...

    def close(self) -> None:
        """Let go of the file or device. Closing twice is harmless."""


def open_source(name: str) -> Source:
    """Open the source that ``name`` describes.

    Args:
        name: a file, a folder of pictures, an address such as ``rtsp://…``, ``/dev/video0``, ``camera:NAME``,
            ``-`` for standard input, ``test-pattern`` or ``test-pattern:WIDTHxHEIGHT@FPS,FRAMES``, where
            each part may be left out.

    Raises:
        SourceError: nothing of that name can be opened, or no frame in it can be decoded.
    """
    if name == "test-pattern" or name.startswith("test-pattern:"):
        return _open_test_pattern(name)
    if name == "-":
        return PipeSource()
    if camera := re.fullmatch(r"camera:(.*)|(/dev/video\d+)", name):
        return _open_camera(camera[1] or camera[2])
    if scheme_of(name) is not None:
        return _open_address(name)
    if Path(name).is_dir():
        return FolderSource(name)
    return FileSource(name)


def _open_camera(device: str) -> LiveSource:
    return LiveSource(f"camera {device}", partial(CameraSource, device), CameraSource(device))


def _open_address(address: str) -> Source:
    found = AddressSource(address)
    if not found.is_live:
        return found
    return LiveSource(address, partial(AddressSource, address), found, ends=scheme_of(address) in FILE_SCHEMES)


def _open_test_pattern(name: str) -> TestPatternSource:
    form = _PATTERN_FORM.fullmatch(name)
    if form is None:
        raise SourceError(
            f"{name!r} does not describe a test pattern",
            "Write test-pattern:WIDTHxHEIGHT@FPS,FRAMES, as in test-pattern:640x360@30,300, or parts of that",
        )
    parts = form.groupdict()
    try:
        rate = Fraction(parts["rate"] or 25)
    except ZeroDivisionError:
        rate = Fraction(0)
    return TestPatternSource(
        width=int(parts["width"] or 640),
        height=int(parts["height"] or 360),
        frame_rate=rate,
        frame_count=None if parts["frames"] is None else int(parts["frames"]),
    )
