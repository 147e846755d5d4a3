"""Runs the application, until it is interrupted or told to stop."""

from __future__ import annotations

import logging
import socket

import uvicorn

from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.serve.app import create_app
from live2diff_trt.serve.errors import ServeError
from live2diff_trt.serve.settings import Limits, ServeSettings

logger = logging.getLogger(__name__)

STOP_SECONDS = 3
"""Sessions that do not end within it are cut off."""


def bind(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens where the settings say; raise ServeError if that can't be."""
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ServeError(
            f"the server can't listen on {settings.host}:{settings.port} ({error})", "Choose another --host or --port"
        ) from error


def make_server(engine: SharedEngine, settings: ServeSettings, limits: Limits | None = None) -> uvicorn.Server:
    """Return a server that is ready to ``run``, in this thread, until its ``should_exit`` is set or a signal comes."""
    limits = limits or Limits()
    return uvicorn.Server(
        uvicorn.Config(
            create_app(engine, settings, limits),
            host=settings.host,
            port=settings.port,
            ws="websockets-sansio",
            ws_max_size=limits.frame_bytes,
            ws_ping_interval=limits.ping_seconds,
            ws_ping_timeout=limits.pong_seconds,
            ws_per_message_deflate=False,  # JPEG files are small already
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
            proxy_headers=False,
            access_log=False,
            log_config=None,
            lifespan="on",
        )
    )
