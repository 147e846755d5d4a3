"""Where frames go: the protocol, the sinks that need no container, and how a sink is named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

import av
import av.error

from live2diff_trt.bundle.errors import OutputExistsError
from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.sink_camera import VirtualCameraSink
from live2diff_trt.runtime.sink_encoder import CONTAINERS, EncoderOptions
from live2diff_trt.runtime.sink_network import NetworkSink
from live2diff_trt.runtime.sink_pipe import PipeSink
from live2diff_trt.runtime.sink_video import VideoSink
from live2diff_trt.runtime.source_address import scheme_of

__all__ = [
    "EncoderOptions",
    "FolderSink",
    "NetworkSink",
    "NullSink",
    "PipeSink",
    "Sink",
    "VideoSink",
    "VirtualCameraSink",
    "open_sink",
]


class Sink(Protocol):
    """Takes finished frames in order, inside its ``with`` block. Leaving the block completes the output."""

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, frame: FinishedFrame) -> None:
        """Take one frame; raise SinkError if it can't be written."""


class NullSink:
    """Takes frames and forgets them.

    Attributes:
        frames: how many it took.
    """

    def __init__(self) -> None:
        self.frames = 0

    def __enter__(self) -> NullSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write(self, frame: FinishedFrame) -> None:
        """Count the frame."""
        self.frames += 1


class FolderSink:
    """Writes frame n as ``frame-00000n.png``; each picture appears complete or not at all.

    Args:
        folder: created on entering, with its parents.
        overwrite: remove the ``frame-*.png`` of an earlier run on entering.

    Raises:
        OutputExistsError: the folder holds frames already.
        SinkError: the folder can't be made or written to.
    """

    def __init__(self, folder: Path | str, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self.frames = 0
        if self.folder.exists() and not self.folder.is_dir():
            raise SinkError(f"{self.folder} is not a folder", "Choose another place")
        if self._old_frames() and not overwrite:
            raise OutputExistsError(self._old_frames()[0])

    def __enter__(self) -> FolderSink:
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self._old_frames():
                path.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write(self, frame: FinishedFrame) -> None:
        """Write one picture; raise SinkError if that fails."""
        target = self.folder / f"frame-{frame.index:06d}.png"
        unfinished = target.with_suffix(".png.partial")
        with _explained(target):
            try:
                unfinished.write_bytes(encode_png(frame.image))
                unfinished.replace(target)
            finally:
                unfinished.unlink(missing_ok=True)
        self.frames += 1

    def _old_frames(self) -> list[Path]:
        return sorted(self.folder.glob("frame-*.png"))


def open_sink(
    name: str,
    *,
    width: int,
    height: int,
    frame_rate: Fraction,
    audio_path: Path | None = None,
    overwrite: bool = False,
) -> Sink:
    """Make the sink that ``name`` describes; nothing is written before its ``with`` block.

    Args:
        name: ``null``, ``-`` for standard output, an address such as ``rtmp://…``, ``virtual-camera`` or
            ``virtual-camera:DEVICE``, a file ending in .mp4, .mkv or .mov, or a folder: no ending, or a slash at its
            end.
        width, height: of every frame, in pixels.
        frame_rate: average, in frames per second.
        audio_path: the file whose audio a video keeps; other sinks leave it.
        overwrite: replace what is there.

    Raises:
        SinkError: ``name`` describes no sink, or what it names can't be written.
        OutputExistsError: something is there already.
    """
    if name == "null":
        return NullSink()
    if name == "-":
        return PipeSink(width, height, frame_rate)
    if camera := re.fullmatch(r"virtual-camera(?::(.+))?", name):
        return VirtualCameraSink(camera[1] or "", width, height, frame_rate)
    if scheme_of(name) is not None:
        return NetworkSink(name, width, height, frame_rate)
    path = Path(name)
    if name.endswith(("/", os.sep)) or path.is_dir() or not path.suffix:
        return FolderSink(path, overwrite=overwrite)
    if path.suffix.lower() in CONTAINERS:
        return VideoSink(path, width, height, frame_rate, audio_path=audio_path, overwrite=overwrite)
    raise SinkError(
        f"it is unknown how to write {name!r}",
        f"Name a file ending in {', '.join(CONTAINERS)}, a folder (with a slash at its end), an address, - or null",
    )


def encode_png(image: Image) -> bytes:
    """Encode uint8 RGB [height, width, 3] as a PNG file."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1)
    packets = encoder.encode(av.VideoFrame.from_ndarray(image, format="rgb24")) + encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise SinkError(
            f"{path} can't be written: {error.strerror}",
            "Check the free space and the rights there, and close what has its files open",
        ) from error
