"""How a server is set up: where it listens, whom it lets in, and how much anyone may ask of it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from ipaddress import ip_address

from live2diff_trt.serve.errors import ServeError

LEAST_TOKEN = 16
"""Characters."""


@dataclass(frozen=True)
class ServeSettings:
    """What a server is told when it is started.

    Attributes:
        host: address to listen on. Any other than this machine's own needs a token.
        port: to listen on; 0 lets the system choose.
        token: that visitors must bring; None: none.
        origins: pages of other servers that may use this one, as in ``https://example.com``.
        webrtc: whether WebRTC is offered; WebSocket and JPEG always are.
        stun: addresses of STUN servers, as in ``stun:stun.example.com:3478``. None are asked if none are named.
        prompt: that sessions begin with.
        seed: that sessions begin with.
        max_sessions: how many stream at once, if memory suffices for them.
        max_waiting: how many wait for a seat.

    Raises:
        ServeError: if they contradict each other.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    origins: tuple[str, ...] = ()
    webrtc: bool = True
    stun: tuple[str, ...] = ()
    prompt: str = ""
    seed: int = 0
    max_sessions: int = 4
    max_waiting: int = 32

    def __post_init__(self) -> None:
        if self.token is None and not self.is_local:
            raise ServeError(f"anyone could use a server on {self.host}", "Pass a token, or listen on 127.0.0.1")
        if self.token is not None and not re.fullmatch(rf"[A-Za-z0-9_-]{{{LEAST_TOKEN},256}}", self.token):
            raise ServeError(
                "that is no token that a browser could send",
                f"Use {LEAST_TOKEN} to 256 letters, digits, - and _, as `openssl rand -hex 16` gives",
            )
        if self.max_sessions < 1 or self.max_waiting < 0:
            raise ServeError(
                f"there can't be {self.max_sessions} sessions and {self.max_waiting} who wait",
                "Allow 1 or more sessions, and 0 or more who wait",
            )
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ServeError(f"{origin!r} is no origin", "Name it as in https://example.com, without a path")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_local_name(self.host)


@dataclass(frozen=True)
class Limits:
    """How much one visitor may ask for.

    Attributes:
        frame_bytes: of one JPEG file or message.
        source_pixels: of one picture.
        body_bytes: of an HTTP request.
        controls_per_second: messages that change something; as many may come at once.
        frames_per_second: those beyond it are dropped and counted.
        sessions_per_minute: that are opened, by all visitors together.
        frames_unseen: pictures on their way to a visitor who has not said yet that they came.
        ping_seconds: between two signs of life that are asked for.
        pong_seconds: a visitor who gives none for so long is gone. Together with ``ping_seconds`` below 5.
        idle_seconds: a seat on which no frame comes for so long is given to the next in the line.
        status_seconds: between two messages about the session's state.
    """

    frame_bytes: int = 2 << 20
    source_pixels: int = 4096 * 2304
    body_bytes: int = 64 << 10
    controls_per_second: int = 30
    frames_per_second: int = 120
    sessions_per_minute: int = 240
    frames_unseen: int = 3
    ping_seconds: float = 1.5
    pong_seconds: float = 2.5
    idle_seconds: float = 60
    status_seconds: float = 0.5


def is_local_name(host: str) -> bool:
    """Whether a host's name or address is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def make_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24).replace("=", "")
