"""Frames to a server or a listener on the network, each on its way as soon as it comes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType

import av
import av.error
from av.container import OutputContainer

from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.sink_encoder import add_video_stream
from live2diff_trt.runtime.sink_hardware import choose_low_delay
from live2diff_trt.runtime.sink_picture import PictureEncoder
from live2diff_trt.runtime.source_address import scheme_of

SEND_TIMEOUT_SECONDS = 10.0
DATAGRAM_BYTES = 1316  # seven packets of a transport stream, which fit through Ethernet
LATENCY = re.compile(r"[?&](?:latency|peerlatency|tsbpddelay)=(\d+)")
"""How long an SRT receiver is asked to hold each packet back, in microseconds, as FFmpeg has it in an address."""
DEFAULT_LATENCY_SECONDS = 0.12
TRAVEL_SECONDS = 0.25  # for the way there, and for what has to be sent again


@dataclass(frozen=True)
class Transport:
    """How video is sent under a scheme.

    Attributes:
        container: its name in FFmpeg.
        query: what is added to an address that has no query.
    """

    container: str
    query: str = ""


TRANSPORTS = {
    "rtmp": Transport("flv"),
    "rtmps": Transport("flv"),
    "srt": Transport("mpegts", f"?pkt_size={DATAGRAM_BYTES}"),
    "udp": Transport("mpegts", f"?pkt_size={DATAGRAM_BYTES}"),
}


class NetworkSink:
    """H.264 to an address: RTMP to a server, SRT or UDP as an MPEG transport stream. There is no sound.

    Frames keep their times. None waits in the encoder for a later one.

    Args:
        address: such as ``rtmp://server/app/key``, ``srt://host:port`` or ``udp://host:port``.
        width, height: of every frame, in pixels, even.
        frame_rate: average, in frames per second.

    Raises:
        SinkError: no video has such a size or rate, or the scheme is unknown; on entering, nobody answers, or this
            FFmpeg lacks the scheme; later, the connection breaks off.
    """

    def __init__(self, address: str, width: int, height: int, frame_rate: Fraction) -> None:
        transport = TRANSPORTS.get(scheme_of(address) or "")
        if transport is None:
            known = ", ".join(f"{scheme}://" for scheme in TRANSPORTS)
            raise SinkError(f"it is unknown how to send to {address}", f"Use an address that begins with {known}")
        self._pictures = PictureEncoder(width, height, frame_rate)
        self._name, self._transport = address, transport
        self._width, self._height, self._frame_rate = width, height, frame_rate
        self._broken = False

    def __enter__(self) -> NetworkSink:
        with self._explained():
            self._container = self._connect()
            options = choose_low_delay(self._width, self._height, self._frame_rate)
            self._stream = add_video_stream(self._container, self._width, self._height, self._frame_rate, options)
            self._container.start_encoding()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._broken:
            return  # to take leave of who is gone would be one error more
        with self._explained():
            if error is None:
                self._container.mux(self._stream.encode(None))
                time.sleep(held_back_seconds(self._name))
            self._container.close()

    def write(self, frame: FinishedFrame) -> None:
        """Send one frame; raise SinkError if it does not fit to the others, or the connection broke off."""
        picture = self._pictures.turn(frame)
        with self._explained():
            self._container.mux(self._stream.encode(picture))

    def _connect(self) -> OutputContainer:
        address = self._name if "?" in self._name else self._name + self._transport.query
        return av.open(
            address,
            "w",
            format=self._transport.container,
            container_options={"flush_packets": "1", "muxdelay": "0", "flvflags": "no_duration_filesize"},
            timeout=SEND_TIMEOUT_SECONDS,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except av.error.ProtocolNotFoundError as error:
            self._broken = True
            raise SinkError(
                f"this FFmpeg does not know {scheme_of(self._name)}: {error.strerror}",
                "Install PyAV on an FFmpeg that does, or send RTMP or UDP to a relay",
            ) from error
        except (av.error.FFmpegError, OSError) as error:
            self._broken = True
            raise SinkError(
                f"{self._name} can't be sent to: {error.strerror}", "Check the address and that its server runs"
            ) from error


def held_back_seconds(address: str) -> float:
    """Return how long after the last packet a connection has to stay for the receiver to hand it on.

    An SRT receiver holds packets back for the latency, and drops those that it still holds once the sender has gone.
    """
    if scheme_of(address) != "srt":
        return 0.0
    asked_for = [int(found) / 1e6 for found in LATENCY.findall(address)]
    return max([DEFAULT_LATENCY_SECONDS, *asked_for]) + TRAVEL_SECONDS
