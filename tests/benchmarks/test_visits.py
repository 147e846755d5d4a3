"""Visitors are counted and timed as they are served, and what goes wrong is said."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.benchmarks.visits import Visit, visit_together
from live2diff_trt.cli.main import app
from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.serve.settings import Limits, ServeSettings
from tests.serve.made_up_server import PlainEngine, RunningServer

TOKEN = "a-token-of-visits"
FEW = {"seconds": 0.5, "rate": 25.0, "size": (64, 48)}


@pytest.fixture
def engine() -> PlainEngine:
    return PlainEngine()


@pytest.fixture
def server(engine: PlainEngine) -> Iterator[RunningServer]:
    settings = ServeSettings(port=0, max_sessions=2, max_waiting=0, token=TOKEN)
    with RunningServer(engine, settings, Limits(status_seconds=0.05)) as running:
        yield running
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("measured")]


def test_every_visitor_sees_its_own_pictures_in_time(server: RunningServer, engine: PlainEngine) -> None:
    found = visit_together(server.address, visitors=2, token=TOKEN, **FEW)  # type: ignore[arg-type]
    assert len(engine.pipelines) == 2
    for visit in found:
        assert 0.5 <= visit.seconds < 1
        assert visit.sent == pytest.approx(25 * visit.seconds, abs=3)
        assert 0 < len(visit.latencies_ms) <= visit.sent + 8  # what was sent before may come in this time
        assert 0 < min(visit.latencies_ms) <= visit.percentile_ms(50) <= visit.percentile_ms(99)
        assert max(visit.latencies_ms) < 1000


def test_rates_and_percentiles() -> None:
    visit = Visit([float(ms) for ms in range(101)], sent=200, seconds=4)
    assert (visit.fps, visit.percentile_ms(50), visit.percentile_ms(99)) == (101 / 4, 50, 99)


def test_the_command_prints_and_records_them(server: RunningServer, tmp_path: Path) -> None:
    record = tmp_path / "visits.json"
    words = ["bench", "visits", server.address, "--seconds", "0.3", "--size", "64x48", "--token", TOKEN]
    printed = CliRunner().invoke(app, [*words, "--record", str(record)], catch_exceptions=False)
    assert printed.exit_code == 0
    assert "latency p50, ms" in printed.output
    written = json.loads(record.read_text(encoding="utf-8"))
    assert written.keys() == {"command", "machine", "visits"}
    (visit,) = written["visits"]
    assert len(visit["latencies_ms"]) > 0


@pytest.mark.parametrize("visitors", [1, 3])
def test_who_is_not_let_in_is_told(server: RunningServer, visitors: int) -> None:
    """Without the token, and where seats and line are full."""
    token = None if visitors == 1 else TOKEN
    with pytest.raises(MeasurementError, match=rf"--max-sessions {visitors}`"):
        visit_together(server.address, visitors=visitors, token=token, **FEW)  # type: ignore[arg-type]


def test_a_session_that_ends_is_no_figure(server: RunningServer, engine: PlainEngine) -> None:
    engine.error = FrameError("the pixels fell out", "Put them back")
    with pytest.raises(MeasurementError, match="the pixels fell out"):
        visit_together(server.address, visitors=1, token=TOKEN, **FEW)  # type: ignore[arg-type]


def test_no_server_is_said() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(MeasurementError, match="ConnectionRefusedError"):
        visit_together(f"http://127.0.0.1:{port}", visitors=1, **FEW)  # type: ignore[arg-type]
