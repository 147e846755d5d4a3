"""Carries the sound of one file into another: packet by packet where the container takes it, else as AAC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from live2diff_trt.runtime.errors import SinkError

logger = logging.getLogger(__name__)

AAC_FALLBACK_RATE = 48000


class AudioTrack:
    """The first audio stream of ``path``, on its way into ``output``. It owns the file it reads.

    Time 0 is that of the file's first video frame, as for a source's frames. Packets that start before it are
    left out, so that no container has to shift the pictures to keep them.

    Args:
        path: the file whose sound is wanted.
        output: a container whose header is not written yet; gains a stream.

    Raises:
        SinkError: on construction, the file can't be read or has no sound; while writing, reading breaks off.
    """

    def __init__(self, path: Path, output: OutputContainer) -> None:
        self._path, self._output = path, output
        with ExitStack() as undo:
            self._input = undo.enter_context(_open_audio(path))
            self._source = self._input.streams.audio[0]
            self._origin = _video_start(self._input)
            self._target, packets = self._connect()
            self._packets = self._timed(packets)
            self._next: Packet[AudioStream] | None = None
            self._started = False
            undo.pop_all()

    def write_until(self, time: Fraction) -> None:
        """Mux the packets that lie before ``time``, in seconds, by more than half, and were not muxed yet."""
        if not self._started:
            self._started, self._next = True, next(self._packets, None)
        while self._next is not None and _middle(self._next) < time:
            packet, self._next = self._next, None
            self._output.mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the file that is read."""
        self._input.close()

    def _connect(self) -> tuple[AudioStream, Iterator[Packet[AudioStream]]]:
        codec = self._source.codec_context.name
        if codec in self._output.supported_codecs:
            return _add_copy(self._output, self._source), self._read()
        logger.info("%s: the container can't hold %s, so the sound becomes AAC", self._path, codec)
        encoder = _add_encoder(self._output, self._source)
        return encoder, self._encoded(encoder)

    def _timed(self, packets: Iterator[Packet[AudioStream]]) -> Iterator[Packet[AudioStream]]:
        for packet in packets:
            if packet.dts is None:
                continue  # only tells a decoder that the end is reached
            shift = round(self._origin / packet.time_base)
            start = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts, packet.pts, packet.stream = packet.dts - shift, start, self._target
            if start >= 0:
                yield packet

    def _encoded(self, encoder: AudioStream) -> Iterator[Packet[AudioStream]]:
        for packet in self._read():
            for frame in _decode(packet):
                yield from encoder.encode(frame)
        yield from encoder.encode(None)

    def _read(self) -> Iterator[Packet[AudioStream]]:
        try:
            yield from self._input.demux(self._source)
        except av.error.InvalidDataError:
            logger.warning("the sound of %s is damaged and ends early", self._path)
        except av.error.FFmpegError as error:
            raise SinkError(
                f"the sound of {self._path} broke off: {error.strerror}", "Check the disk, and start again"
            ) from error


def _open_audio(path: Path) -> InputContainer:
    try:
        container = av.open(str(path.absolute()), mode="r")
    except (av.error.FFmpegError, OSError) as error:
        raise SinkError(f"the sound of {path} can't be read: {error.strerror}", "Check the path") from error
    if not container.streams.audio:
        container.close()
        raise SinkError(f"{path} has no sound", "Name a file that has, or leave the sound out")
    return container


def _video_start(container: InputContainer) -> Fraction:
    for stream in container.streams.video:
        if stream.start_time is not None and stream.time_base:
            return stream.start_time * stream.time_base
    return Fraction(0)


def _add_copy(output: OutputContainer, source: AudioStream) -> AudioStream:
    if hasattr(output, "add_stream_from_template"):
        return output.add_stream_from_template(source)
    stream: AudioStream = output.add_stream(template=source)  # type: ignore[call-overload]  # PyAV 13
    return stream


def _add_encoder(output: OutputContainer, source: AudioStream) -> AudioStream:
    rates = av.Codec("aac", "w").audio_rates or []
    stream = output.add_stream("aac", rate=source.rate if source.rate in rates else AAC_FALLBACK_RATE)
    # A WAV may not say where its channels belong, and AAC has to: more than two are mixed into two.
    stream.codec_context.layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
    return stream


def _decode(packet: Packet[AudioStream]) -> list[av.AudioFrame]:
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []


def _middle(packet: Packet[AudioStream]) -> Fraction:
    return ((packet.pts or 0) + Fraction(packet.duration or 0, 2)) * packet.time_base
