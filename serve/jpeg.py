"""JPEG pictures, by the FFmpeg that reads everything else."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.runtime.frame import Image

QUALITY = 3
"""Of FFmpeg's scale from 2, the best, to 31."""


def encode_jpeg(image: Image) -> bytes:
    """Return a picture, uint8 RGB [height, width, 3], as a JPEG file."""
    height, width = image.shape[:2]
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"qmin": str(QUALITY), "qmax": str(QUALITY)}
    frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG
    )
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def decode_jpeg(data: bytes, most_pixels: int) -> Image:
    """Return a JPEG file's picture, uint8 RGB [height, width, 3].

    Args:
        data: the file.
        most_pixels: a larger picture is not decoded.

    Raises:
        FrameError: if it is no JPEG file, a damaged one, or too large.
    """
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(most_pixels), "err_detect": "explode"}
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except FFmpegError as error:
        raise _refuse(len(data), most_pixels) from error
    if not frames:
        raise _refuse(len(data), most_pixels)
    return as_rgb(frames[0])


def as_rgb(frame: VideoFrame) -> Image:
    """Return a decoded picture as uint8 RGB [height, width, 3]."""
    return cast("Image", frame.to_ndarray(format="rgb24"))


def _refuse(size: int, most_pixels: int) -> FrameError:
    return FrameError(
        f"{size} bytes are no JPEG picture of up to {most_pixels} pixels",
        "Send complete baseline JPEG files of a smaller picture",
    )
