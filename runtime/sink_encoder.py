"""The H.264 encoder and the container that a video is written with."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.stream import VideoStream

from live2diff_trt.runtime.errors import SinkError

CONTAINERS = (".mp4", ".mkv", ".mov")
TIME_BASE = Fraction(1, 90000)
Encoder = Literal["libx264", "h264_nvenc"]
BT709, LIMITED_RANGE = 1, 1  # as H.264 numbers matrix, primaries and transfer, and as FFmpeg numbers ranges
HYBRID_FRAGMENTS_SINCE = (61, 7)  # libavformat of FFmpeg 7.1


@dataclass(frozen=True)
class EncoderOptions:
    """How the H.264 encoder weighs quality, size and speed.

    Attributes:
        crf: constant quality, 0 (lossless) to 51.
        preset: x264's speed, ultrafast to veryslow.
        keyframe_seconds: the longest way between two pictures that a player can jump to, or begin with.
        low_delay: let no picture wait for a later one, at some cost in size.
        encoder: x264, or the one of an NVIDIA card, which has speeds of its own.
    """

    crf: int = 18
    preset: str = "veryfast"
    keyframe_seconds: int = 2
    low_delay: bool = False
    encoder: Encoder = "libx264"

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51 or self.keyframe_seconds < 1:
            raise SinkError(
                f"the encoder can't use crf {self.crf} with a keyframe every {self.keyframe_seconds} s",
                "crf lies between 0 and 51, and keyframes are at least 1 s apart",
            )

    def for_encoder(self, frame_rate: Fraction) -> dict[str, str]:
        """Return the options as the encoder names them."""
        named = self._for_nvenc() if self.encoder == "h264_nvenc" else self._for_x264()
        return named | {
            "g": str(max(1, round(self.keyframe_seconds * frame_rate))),
            # A frame that refers to later ones delays the first picture. A fragmented file, as ours is while
            # it grows, has no place to say so: every time would be two frames late.
            "bf": "0",
        }

    def _for_x264(self) -> dict[str, str]:
        tuned = {"tune": "zerolatency"} if self.low_delay else {}
        return tuned | {"crf": str(self.crf), "preset": self.preset}

    def _for_nvenc(self) -> dict[str, str]:
        tuned = {"tune": "ull", "zerolatency": "1", "delay": "0"} if self.low_delay else {}
        return tuned | {"rc": "vbr", "cq": str(self.crf)}


LOW_DELAY = EncoderOptions(crf=21, keyframe_seconds=1, low_delay=True)


def open_container(path: Path) -> OutputContainer:
    """Open ``path`` for writing, in the container that its suffix names."""
    return av.open(str(path.absolute()), mode="w", container_options=_survival_options(path.suffix.lower()))


def add_video_stream(
    container: OutputContainer, width: int, height: int, frame_rate: Fraction, options: EncoderOptions
) -> VideoStream:
    """Add an H.264 stream that takes yuv420p frames, BT.709 in limited range, and says so."""
    try:
        stream = container.add_stream(options.encoder, rate=frame_rate)
    except UnknownCodecError as error:
        raise SinkError(f"this FFmpeg has no {options.encoder}", "Install PyAV from its wheel") from error
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    # x264 encodes several frames at once otherwise, whatever its tune: each would wait for those behind it.
    stream.thread_type = "SLICE" if options.low_delay else "AUTO"
    stream.options = dict(options.for_encoder(frame_rate))
    context = stream.codec_context
    context.time_base = TIME_BASE
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _survival_options(suffix: str) -> dict[str, str]:
    """Options under which the file can be played at any moment, even if the process is killed."""
    if suffix == ".mkv":
        return {"cluster_time_limit": "1000", "flush_packets": "1"}
    # An ordinary MP4 has its index at the end and is nothing without it. Fragments of a second carry
    # their own. FFmpeg 7.1 makes an ordinary file of them on closing; before it they stay, and players
    # take them too. Their trailer, of no use to us, would hide that the last fragment was not written.
    libavformat: tuple[int, ...] = av.library_versions["libavformat"]
    hybrid = libavformat >= HYBRID_FRAGMENTS_SINCE
    flags = "hybrid_fragmented" if hybrid else "empty_moov+default_base_moof+skip_trailer"
    return {"movflags": flags, "frag_duration": "1000000", "flush_packets": "1"}
