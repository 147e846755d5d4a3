"""Servers that are stopped at the end, and proof that nothing of them is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.serve.settings import Limits, ServeSettings
from tests.serve.made_up_server import PlainEngine, RunningServer, wait_until

Serve = Callable[..., RunningServer]


@pytest.fixture
def engine() -> PlainEngine:
    return PlainEngine()


@pytest.fixture
def serve(engine: PlainEngine) -> Iterator[Serve]:
    """Start a server: of the plain engine if no other is given, on a port of its own."""
    before = set(threading.enumerate())
    with ExitStack() as running:

        def start(engine: SharedEngine = engine, limits: Limits | None = None, **settings: Any) -> RunningServer:
            limits = limits or Limits(status_seconds=0.05)
            return running.enter_context(RunningServer(engine, ServeSettings(port=0, **settings), limits))

        yield start
    # Pools keep their idle threads; what streams must be gone.
    wait_until(lambda: not {t for t in threading.enumerate() if "visitor" in t.name} - before, "all streams end")


@pytest.fixture
def server(serve: Serve) -> RunningServer:
    return serve()
