"""What every encoded video shares: sizes and rates it may have, the clock, the order of frames, colours."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.sink_encoder import TIME_BASE


class PictureEncoder:
    """Turns finished frames into what an encoder of yuv420p takes, in limited range, and refuses those out of order.

    Args:
        width, height: of every frame, in pixels, even.
        frame_rate: average, in frames per second.
        colorspace: the matrix.

    Attributes:
        frames: how many were turned.
        last_time: presentation time of the last one in seconds, None before the first.

    Raises:
        SinkError: no video has such a size or rate.
    """

    def __init__(
        self, width: int, height: int, frame_rate: Fraction, colorspace: Colorspace = Colorspace.ITU709
    ) -> None:
        check_format(width, height, frame_rate)
        self.frames = 0
        self.last_time: Fraction | None = None
        self._width, self._height, self._colorspace = width, height, colorspace
        self._converter = VideoReformatter()

    def turn(self, frame: FinishedFrame) -> av.VideoFrame:
        """Return the frame as yuv420p, at its time in ticks of ``TIME_BASE``.

        Raises:
            SinkError: it is of another size, or does not come after the last one.
        """
        self._check(frame)
        picture = self._to_yuv(frame.image)
        picture.pts, picture.time_base = ticks(frame.time), TIME_BASE
        self.frames, self.last_time = self.frames + 1, frame.time
        return picture

    def _to_yuv(self, image: Image) -> av.VideoFrame:
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        return self._converter.reformat(
            rgb, format="yuv420p", src_colorspace=Colorspace.DEFAULT, dst_colorspace=self._colorspace
        )

    def _check(self, frame: FinishedFrame) -> None:
        check_size(frame, self._width, self._height, "the video")
        if self.last_time is not None and ticks(frame.time) <= ticks(self.last_time):
            raise SinkError(
                f"frame {frame.index} at {float(frame.time):.6f} s does not come after the last one",
                "Write frames in the order of their times",
            )


def check_size(frame: FinishedFrame, width: int, height: int, target: str) -> None:
    """Raise SinkError if a frame is not of the size, in pixels, of ``target``, as the message calls it."""
    found_height, found_width = frame.image.shape[:2]
    if (found_width, found_height) != (width, height):
        raise SinkError(
            f"frame {frame.index} is {found_width}x{found_height}, {target} {width}x{height}",
            "Give every frame the size that the sink was made for",
        )


def check_format(width: int, height: int, frame_rate: Fraction) -> None:
    """Raise SinkError if no video has such a size, in pixels, or such a rate, in frames per second."""
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise SinkError(f"a video of {width}x{height} can't be encoded", "Use an even width and an even height")
    if frame_rate <= 0:
        raise SinkError(f"a video can't have {frame_rate} frames per second", "Use a rate above 0")


def ticks(time: Fraction) -> int:
    """Round to the encoder's clock, halves up: rounding them to even could bring two frames together."""
    return math.floor(time / TIME_BASE + Fraction(1, 2))
