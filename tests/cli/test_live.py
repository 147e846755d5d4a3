"""A live run as a person starts it: a transport stream comes over UDP, and a video is written meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

from typer.testing import CliRunner

from live2diff_trt.cli.main import app
from live2diff_trt.runtime.source import FileSource
from tests.runtime.test_source_live import free_port, sent, write_transport_stream


def test_a_live_stream_is_written_to_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out.mp4"
    words = ["run", str(tiny_bundle), "--backend", "onnxruntime", "-i", f"udp://127.0.0.1:{port}", "-o", str(out)]
    with sent(write_transport_stream(tmp_path / "sent.ts", 96, 64, 50), port, threading.Event()):
        result = CliRunner().invoke(app, [*words, "--frames", "30"])
    assert result.exit_code == 0, result.output
    assert "latency p50 / p99" in result.output
    with FileSource(out) as source:
        times = [frame.time for frame in source]
    assert len(times) == 30
    assert times[-1] >= 1  # those that came while the stream was busy were dropped, and leave gaps
