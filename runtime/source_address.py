"""Sources and cameras at the end of a network or cable: opened for low delay, given up when nothing comes."""

from __future__ import annotations

import re
from pathlib import Path

import av
import av.error
from av.container import InputContainer

from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import NewFrame, empty_frame
from live2diff_trt.runtime.source_decode import DecodedSource, explained
from live2diff_trt.runtime.source_health import SourceHealth

ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)://.*", re.IGNORECASE)
OPEN_TIMEOUT_SECONDS = 10.0
STALL_SECONDS = 5.0
LOW_DELAY = {  # what was read to find out what comes is not shown
    "fflags": "nobuffer",
    "flags": "low_delay",
    "analyzeduration": "1000000",
}
SCHEME_OPTIONS = {
    "rtsp": {"rtsp_transport": "tcp"},  # over UDP a lost packet is a damaged picture
    "udp": {"overrun_nonfatal": "1", "fifo_size": "50000"},  # who is late loses packets, not the connection
}
FILE_SCHEMES = ("http", "https", "file")
"""Schemes of files as well as of live streams: only one that does not know its length is live, and its end is one."""


class AddressSource(DecodedSource):
    """What a server, a sender or a playlist gives: RTSP, RTMP, SRT, HLS, UDP or a file behind HTTP.

    Args:
        address: as FFmpeg has it, such as ``rtsp://camera/stream`` or ``udp://0.0.0.0:5000``.
        new_frame: where frames go; may be set while reading.
        health: counts what is survived.

    Raises:
        SourceError: nobody answers within 10 s, there is no video, or this FFmpeg does not know the scheme; while
            reading, it breaks off or nothing comes for 5 s.
    """

    audio_path: Path | None = None

    def __init__(self, address: str, new_frame: NewFrame = empty_frame, health: SourceHealth | None = None) -> None:
        container = _open_address(address)
        self.is_live = container.duration is None or scheme_of(address) not in FILE_SCHEMES
        super().__init__(address, container, new_frame, health, low_delay=self.is_live)
        self.frame_count = None if self.is_live else container.streams.video[0].frames or None


def scheme_of(address: str) -> str | None:
    """Return the scheme of an address in lower case, None if it is none."""
    form = ADDRESS.fullmatch(address)
    return None if form is None else form["scheme"].lower()


def explain_scheme(address: str, error: av.error.FFmpegError) -> SourceError:
    """Return what to say where FFmpeg was built without a protocol, as PyAV's wheels are without SRT."""
    return SourceError(
        f"this FFmpeg does not know {scheme_of(address)}: {error.strerror}",
        "Install PyAV on an FFmpeg that does, or let a relay send RTSP, RTMP or UDP",
    )


def _open_address(address: str) -> InputContainer:
    scheme = scheme_of(address) or ""
    options = {} if scheme in FILE_SCHEMES else LOW_DELAY | SCHEME_OPTIONS.get(scheme, {})
    with explained(address, "Check the address and that its server runs"):
        try:
            return av.open(address, mode="r", options=options, timeout=(OPEN_TIMEOUT_SECONDS, STALL_SECONDS))
        except av.error.ProtocolNotFoundError as error:
            raise explain_scheme(address, error) from error
        except av.error.ExitError as error:
            raise SourceError(
                f"nothing came from {address} within {OPEN_TIMEOUT_SECONDS:g} s", "Check that it is sent"
            ) from error
