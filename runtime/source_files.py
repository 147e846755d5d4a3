"""Sources that FFmpeg decodes: files, cameras, pipes, folders of pictures."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image, NewFrame, SourceFrame, empty_frame
from live2diff_trt.runtime.source_decode import DEFAULT_FRAME_RATE, DecodedSource, explained, is_picture
from live2diff_trt.runtime.source_health import SourceHealth

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
STANDARD_INPUT = 0


class FileSource(DecodedSource):
    """Any file that FFmpeg reads: a video, a picture, an animated GIF.

    Times are those of the container, counted from the first frame.

    Args:
        path: of the file.
        new_frame: where frames go; may be set while reading.

    Raises:
        SourceError: the file is missing, is no video, holds no frame that can be decoded, or breaks off.
    """

    is_live = False

    def __init__(self, path: Path | str, new_frame: NewFrame = empty_frame) -> None:
        super().__init__(str(path), _open_file(Path(path)), new_frame)
        self.frame_count = _frame_count(self._container)
        self.audio_path = Path(path) if self._container.streams.audio else None


class CameraSource(DecodedSource):
    """A camera, without end; a frame's time is when the driver took it, counted from the first.

    Args:
        device: as the system names it: ``/dev/video0`` or ``0`` on Linux, an index or a name elsewhere.
        new_frame: where frames go; may be set while reading.
        health: counts what is survived.

    Raises:
        SourceError: there is no such camera, something else uses it, or it stops.
    """

    frame_count: int | None = None
    audio_path: Path | None = None
    is_live = True

    def __init__(self, device: str, new_frame: NewFrame = empty_frame, health: SourceHealth | None = None) -> None:
        super().__init__(f"camera {device}", _open_camera(device), new_frame, health, low_delay=True)


class PipeSource(DecodedSource):
    """What another program writes: yuv4mpeg, or any container that FFmpeg reads from its beginning to its end.

    Args:
        descriptor: of the open file that is read. It stays open.

    Raises:
        SourceError: a terminal would be read; what comes is no video, or ends before the first frame.
    """

    frame_count: int | None = None
    audio_path: Path | None = None
    is_live = False

    def __init__(self, descriptor: int = STANDARD_INPUT) -> None:
        super().__init__("the pipe", _open_pipe(descriptor), empty_frame)


class FolderSource(ClosedAtEnd):
    """The pictures of a folder, frame2 before frame10, as a video of ``frame_rate`` frames per second.

    Raises:
        SourceError: the folder is missing or has no picture; while reading, a picture can't be decoded.
    """

    audio_path: Path | None = None
    is_live = False

    def __init__(self, folder: Path | str, frame_rate: Fraction = DEFAULT_FRAME_RATE) -> None:
        if frame_rate <= 0:
            raise SourceError(f"{folder} can't be played at {frame_rate} frames per second", "Use a rate above 0")
        pictures = list_pictures(Path(folder))
        self.frame_rate = frame_rate
        self.frame_count: int | None = len(pictures)
        self.new_frame: NewFrame = empty_frame
        self.health = SourceHealth()
        self.height, self.width = read_picture(pictures[0], self.new_frame).shape[:2]
        self._frames = self._read(pictures)

    def __iter__(self) -> Iterator[SourceFrame]:
        return self._frames

    def close(self) -> None:
        """End the reading; no picture stays open between frames."""
        self._frames = iter(())

    def _read(self, pictures: list[Path]) -> Iterator[SourceFrame]:
        for index, picture in enumerate(pictures):
            yield SourceFrame(read_picture(picture, self.new_frame), index / self.frame_rate)


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures in ``folder`` in natural order; raise SourceError if there are none."""
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}", "Check the path")
    pictures = [path for path in folder.iterdir() if _is_picture(path)]
    if not pictures:
        known = ", ".join(sorted(suffix.removeprefix(".") for suffix in PICTURE_SUFFIXES))
        raise SourceError(f"{folder} holds no picture", f"Fill it with pictures of these kinds: {known}")
    return sorted(pictures, key=_natural_order)


def read_picture(path: Path, new_frame: NewFrame) -> Image:
    """Decode a picture to uint8 RGB [height, width, 3], upright, in a new frame; raise SourceError if that fails."""
    with FileSource(path, new_frame) as source:
        return next(iter(source)).image


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    # Text and numbers take turns, text first, so that equal places always hold comparable things.
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name


def _frame_count(container: InputContainer) -> int | None:
    return 1 if is_picture(container) else container.streams.video[0].frames or None


def _open_file(path: Path) -> InputContainer:
    if path.is_dir():
        raise SourceError(f"{path} is a folder", "Name a file, or a folder that holds pictures")
    if not path.exists():
        raise SourceError(f"there is no file {path}", "Check the path")
    with explained(str(path), "Check that it is a complete video or picture; other kinds must be converted first"):
        # An absolute path can't be taken for an address, as "take:2.mp4" would be.
        return av.open(str(path.absolute()), mode="r")


def _open_pipe(descriptor: int) -> InputContainer:
    if os.isatty(descriptor):
        raise SourceError("a terminal sends no video", "Pipe one in, as in `ffmpeg … -f yuv4mpegpipe - | … --input -`")
    with explained("the pipe", "See why the program before it ended, and that it writes video"):
        return av.open(f"pipe:{descriptor}", mode="r")


def _open_camera(device: str) -> InputContainer:
    camera_format = CAMERA_FORMATS.get(sys.platform)
    if camera_format is None:
        raise SourceError(f"cameras can't be read on {sys.platform}", "Record a file and name that")
    with explained(f"camera {device}", "Check that it is plugged in and that no other program uses it"):
        return av.open(_camera_name(device), mode="r", format=camera_format)


def _camera_name(device: str) -> str:
    if sys.platform == "linux" and device.isdigit():
        return f"/dev/video{device}"
    if sys.platform == "win32" and not device.startswith("video="):
        return f"video={device}"
    return device
