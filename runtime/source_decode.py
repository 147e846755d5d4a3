"""Decoding with FFmpeg: packets become upright RGB frames whose times rise."""

from __future__ import annotations

import itertools
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import cast

import av
import av.error
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image, NewFrame, SourceFrame
from live2diff_trt.runtime.source_health import SourceHealth

logger = logging.getLogger(__name__)

Turns = Callable[[Image], Image]
"""Gives a view of an image, uint8 [height, width, 3], upright."""

DEFAULT_FRAME_RATE = Fraction(25)
HIGHEST_FRAME_RATE = 999  # above it, a container told its clock's ticks for want of a rate
POLL_SECONDS = 0.002

COLORSPACE_UNSPECIFIED = 2
COLORSPACES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
}
HIGH_DEFINITION_HEIGHT = 720


class DecodedSource(ClosedAtEnd):
    """The first video stream of an opened container; it owns the container.

    It may be closed while another thread reads it.

    Args:
        name: what error messages call it.
        container: opened for reading; closed by ``close()``, and at once if construction fails.
        new_frame: where frames go.
        health: counts what is survived; the source's own if not given.
        low_delay: decode each frame as it comes; else several at once, which is faster and delays them.

    Attributes:
        new_frame: the same; may be set while reading.
        frame_rate: average, in frames per second; 25 if the container does not say.
        width, height: of the first frame when upright, in pixels.
        health: what was survived so far.

    Raises:
        SourceError: on construction, if there is nothing to decode; while reading, if the source breaks off.
    """

    def __init__(
        self,
        name: str,
        container: InputContainer,
        new_frame: NewFrame,
        health: SourceHealth | None = None,
        *,
        low_delay: bool = False,
    ) -> None:
        with ExitStack() as undo:
            undo.callback(container.close)
            self.new_frame = new_frame
            self._name, self._container = name, container
            self._stream = _video_stream(name, container)
            self._stream.thread_type = "SLICE" if low_delay else "AUTO"
            self.frame_rate = _frame_rate(self._stream)
            self.health = health or SourceHealth()
            self._size: tuple[int, int] | None = None
            self._reading, self._closed = threading.Lock(), False
            self._frames = self._starting_with_first(self._decode())
            undo.pop_all()

    def __iter__(self) -> Iterator[SourceFrame]:
        while (frame := self._next_frame()) is not None:
            yield frame
            del frame  # while the next one is waited for, its memory may be used again

    def close(self) -> None:
        """Close the container, or let the thread that reads close it. Closing twice is harmless."""
        if self.health.skipped_packets > 1 and not self._closed:
            logger.warning("%s: %d packets could not be decoded", self._name, self.health.skipped_packets)
        self._closed = True
        self._close_unless_reading()

    def _next_frame(self) -> SourceFrame | None:
        with self._reading:
            frame = None if self._closed else next(self._frames, None)
        if not self._closed:
            return frame
        self._close_unless_reading()  # who closed it could not
        return None

    def _close_unless_reading(self) -> None:
        if self._reading.acquire(blocking=False):
            self._container.close()
            self._reading.release()

    def _starting_with_first(self, frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
        """Decode one frame at once: only then is it known that there is one, and how large it is upright."""
        first = next(frames, None)
        if first is None:
            raise SourceError(
                f"not one frame of {self._name} can be decoded",
                "The file is cut off or damaged: copy or convert it again",
            )
        self.height, self.width = first.image.shape[:2]
        return itertools.chain([first], frames)

    def _decode(self) -> Iterator[SourceFrame]:
        clock, converter = RisingClock(self._name, self.frame_rate), VideoReformatter()
        read_turns = turns_of_picture if is_picture(self._container) else turns_of_video
        for packet in self._packets():
            for frame in self._decode_packet(packet):
                self._examine(frame)
                stamp = None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
                turned = read_turns(frame)(_to_rgb(frame, converter))
                image = self.new_frame(*turned.shape[:2])
                image[:] = turned
                yield SourceFrame(image, clock.time_of(stamp))

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        while True:
            try:
                yield from self._container.demux(self._stream)
            except av.error.BlockingIOError:  # a camera on macOS has no new frame yet
                time.sleep(POLL_SECONDS)
                continue
            except av.error.ExitError as error:  # PyAV's word for what took too long
                self.health.stalls += 1
                raise SourceError(
                    f"nothing comes from {self._name} any more", "Check the network and what sends it, and start again"
                ) from error
            except av.error.InvalidDataError:
                logger.warning("%s is damaged from here on and ends early", self._name)
            except av.error.FFmpegError as error:
                raise SourceError(
                    f"{self._name} broke off: {error.strerror}",
                    "Check the device, disk or network, and start again",
                ) from error
            return

    def _decode_packet(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.error.InvalidDataError:
            if not self.health.skipped_packets:
                logger.warning("%s: a damaged packet is skipped; further ones are only counted", self._name)
            self.health.skipped_packets += 1
            return []

    def _examine(self, frame: av.VideoFrame) -> None:
        size = frame.width, frame.height
        self.health.damaged_frames += frame.is_corrupt
        self.health.size_changes += self._size not in (None, size)
        self._size = size


class RisingClock:
    """Turns a container's time stamps into times that start at 0 and strictly rise.

    A stamp that is missing or does not rise is replaced by the last time plus one frame.
    """

    def __init__(self, name: str, frame_rate: Fraction) -> None:
        self._name = name
        self._step = 1 / frame_rate
        self._origin = Fraction(0)
        self._last: Fraction | None = None
        self._repaired = False

    def time_of(self, stamp: Fraction | None) -> Fraction:
        """Return the time, in seconds, of the next frame, which carries ``stamp``, in seconds or None."""
        if self._last is None:
            self._origin, self._last = stamp or Fraction(0), Fraction(0)
        elif stamp is None or stamp - self._origin <= self._last:
            self._last += self._step
            self._log_repair()
        else:
            self._last = stamp - self._origin
        return self._last

    def _log_repair(self) -> None:
        if not self._repaired:
            logger.warning("%s: time stamps are missing or do not rise; frames go on one by one", self._name)
        self._repaired = True


def is_picture(container: InputContainer) -> bool:
    """Whether a file is one picture, and no video."""
    return container.format.name == "image2" or container.format.name.endswith("_pipe")


def turns_of_picture(frame: av.VideoFrame) -> Turns:
    """Return what turns a picture upright, by quarters; a mirroring that EXIF asks for is left out.

    The frame's side data is not looked at: PyAV (18.1) frees what it says of a colour profile twice, and raises
    ValueError at EXIF, which it does not know.
    """
    quarters = round(frame.rotation / 90)
    return lambda image: np.rot90(image, quarters)


def turns_of_video(frame: av.VideoFrame) -> Turns:
    """Return what turns and mirrors a video's frame as its display matrix asks: x' = ax + cy, y' = bx + dy."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return lambda image: image
    a, b, _, c, d = struct.unpack("=5i", bytes(cast(Buffer, matrix))[:20])

    def turn(image: Image) -> Image:
        if abs(b) > abs(a):
            return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]

    return turn


def _to_rgb(frame: av.VideoFrame, converter: VideoReformatter) -> Image:
    """Convert a decoded frame to uint8 RGB [height, width, 3], a view of FFmpeg's memory where PyAV can give one.

    ``converter`` is kept from frame to frame: setting one up takes longer than converting.
    """
    space = _colorspace(frame)
    target = None if space is None else Colorspace.DEFAULT
    rgb = converter.reformat(frame, format="rgb24", src_colorspace=space, dst_colorspace=target)
    return cast(Image, rgb.to_ndarray())


def _colorspace(frame: av.VideoFrame) -> Colorspace | None:
    """Name the YUV matrix of ``frame``: PyAV before 17 does not look at the tag. None leaves it to PyAV.

    Video without a tag is taken as players take it: BT.709 for high definition, BT.601 below.
    """
    if frame.format.is_rgb:
        return None
    if frame.colorspace == COLORSPACE_UNSPECIFIED:
        return Colorspace.ITU709 if frame.height >= HIGH_DEFINITION_HEIGHT else Colorspace.ITU601
    return COLORSPACES.get(frame.colorspace)


def _video_stream(name: str, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise SourceError(f"{name} has no video stream", "Choose a file with a picture; this one may be sound only")
    stream = container.streams.video[0]
    if getattr(stream, "codec_context", None) is None:
        raise SourceError(f"{name} is compressed in a way that this FFmpeg can't decode", "Convert it to H.264 first")
    return stream


def _frame_rate(stream: VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= HIGHEST_FRAME_RATE:
            return rate
    return DEFAULT_FRAME_RATE


@contextmanager
def explained(name: str, remedy: str) -> Iterator[None]:
    """Turn what FFmpeg says to an attempt at opening ``name`` into a SourceError."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{name} can't be opened: {reason}", remedy) from error
