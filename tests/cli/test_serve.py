"""``live2diff-trt serve`` as a person starts it, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.cli.main import app
from live2diff_trt.cli.serve import _show_address
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.serve.errors import ServeError
from live2diff_trt.serve.settings import ServeSettings

PROGRAM = "from live2diff_trt.cli.main import main; main()"


def test_it_serves_says_where_and_ends_when_it_is_interrupted(tiny_bundle: Path, other_bundle: Path) -> None:
    words = [str(tiny_bundle), "--port", "0", "--host", "0.0.0.0", "--backend", "onnxruntime", "--log-json"]
    words += ["--style", f"as another bundle={other_bundle}"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", *words], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stderr is not None
    try:
        lines: list[str] = []
        while not (found := re.search(r"http://0\.0\.0\.0:(\d+)/#token=(\S+)", lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        port, token = found[1], found[2]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/stream", headers={"Authorization": f"Bearer {token}"}
        )
        described = json.load(urllib.request.urlopen(request, timeout=20))
        assert (described["width"], described["styles"]) == (64, ["as another bundle"])
        process.send_signal(signal.SIGINT)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def test_a_token_that_was_given_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ServeSettings(host="0.0.0.0", port=0, token="a-token-that-somebody-chose-1234")
    _show_address(8000, settings, None)
    assert capsys.readouterr().err == "http://0.0.0.0:8000/#token=…\n"


def test_a_port_that_is_taken_is_refused(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", str(tiny_bundle), "--port", port, "--backend", "onnxruntime"])
    assert isinstance(result.exception, ServeError)
    assert "Choose another --host or --port" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing", "--port", "0", "--backend", "onnxruntime"], BundleError),
        (["nothing", "--port", "0", "--host", "0.0.0.0", "--token", "short"], ServeError),
        (["nothing", "--port", "0", "--origin", "example.com"], ServeError),
        (["nothing", "--port", "0", "--style", "ink"], ControlError),
        (["nothing", "--port", "0", "--style", "ink=a", "--style", "ink=b"], ControlError),
    ],
)
def test_what_can_not_be_served_is_refused(words: list[str], error: type[Exception]) -> None:
    result = CliRunner().invoke(app, ["serve", *words])
    assert isinstance(result.exception, error), result.output
