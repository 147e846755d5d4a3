"""Frames on standard output, for the next program of a chain: yuv4mpeg, which says what it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import TracebackType

import av
import av.error
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.sink_picture import PictureEncoder
from live2diff_trt.runtime.source_decode import HIGH_DEFINITION_HEIGHT

STANDARD_OUTPUT = 1


class PipeSink:
    """Writes frames as yuv4mpeg, yuv420p in limited range, each as soon as it comes.

    The format has no times: every frame is shown for one frame of the rate. It does not name its matrix either, so that
    is the one which players take: BT.709 for high definition, BT.601 below.

    Args:
        width, height: of every frame, in pixels, even.
        frame_rate: in frames per second.
        descriptor: of the open file that is written to. It stays open.

    Raises:
        SinkError: no video has such a size or rate, or a terminal would be written to; later, who reads is gone.
    """

    def __init__(self, width: int, height: int, frame_rate: Fraction, descriptor: int = STANDARD_OUTPUT) -> None:
        if os.isatty(descriptor):
            raise SinkError("a terminal does not show video", "Pipe it on, as in `… --output - | ffplay -`")
        space = Colorspace.ITU709 if height >= HIGH_DEFINITION_HEIGHT else Colorspace.ITU601
        self._pictures = PictureEncoder(width, height, frame_rate, space)
        self._width, self._height, self._frame_rate = width, height, frame_rate
        self._descriptor = descriptor
        self._broken = False

    def __enter__(self) -> PipeSink:
        with self._explained():
            self._container = av.open(
                f"pipe:{self._descriptor}", "w", format="yuv4mpegpipe", container_options={"flush_packets": "1"}
            )
            self._stream = self._add_stream()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._broken or not self._pictures.frames:
            return  # to end what was not begun, or has no reader, would be one error more
        with self._explained():
            self._container.close()

    def write(self, frame: FinishedFrame) -> None:
        """Write one frame; raise SinkError if it does not fit to the others, or nobody reads any more."""
        picture = self._pictures.turn(frame)
        picture.pts, picture.time_base = self._pictures.frames - 1, 1 / self._frame_rate
        with self._explained():
            self._container.mux(self._stream.encode(picture))

    def _add_stream(self) -> VideoStream:
        stream = self._container.add_stream("rawvideo", rate=self._frame_rate)
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
        stream.codec_context.time_base = 1 / self._frame_rate
        return stream

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self._broken = True
            raise SinkError(
                f"the pipe can't be written to: {error.strerror}", "See why the program that reads it ended"
            ) from error
