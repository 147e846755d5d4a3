"""Whether this machine has an encoder in hardware, found out by encoding a picture."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction

import av
import av.error
import numpy as np
from av.codec.codec import UnknownCodecError

from live2diff_trt.runtime.sink_encoder import LOW_DELAY, TIME_BASE, EncoderOptions

logger = logging.getLogger(__name__)


def choose_low_delay(width: int, height: int, frame_rate: Fraction) -> EncoderOptions:
    """Return how to encode for low delay: in hardware where that takes pictures of this size, else by x264.

    Many NVIDIA cards have NVENC, and the largest, H100 and H200, do not; it takes no picture below about 146x50.
    """
    hardware = replace(LOW_DELAY, encoder="h264_nvenc")
    chosen = hardware if encodes(hardware, width, height, frame_rate) else LOW_DELAY
    logger.info("video is encoded by %s", chosen.encoder)
    return chosen


def encodes(options: EncoderOptions, width: int, height: int, frame_rate: Fraction) -> bool:
    """Whether the encoder is here, and gives a picture as soon as it gets one."""
    try:
        encoder = av.CodecContext.create(options.encoder, "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = TIME_BASE, frame_rate
        encoder.options = options.for_encoder(frame_rate)
        encoder.thread_type = "SLICE"
        picture = av.VideoFrame.from_ndarray(np.zeros((height * 3 // 2, width), np.uint8), format="yuv420p")
        picture.pts, picture.time_base = 0, TIME_BASE
        return bool(encoder.encode(picture))
    except (UnknownCodecError, av.error.FFmpegError) as error:
        logger.debug("%s does not work here: %s", options.encoder, error)
        return False
