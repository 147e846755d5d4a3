"""The client of docs/serve.md, run as a reader would run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.shared_engine import open_shared_engine
from live2diff_trt.serve.jpeg import decode_jpeg, encode_jpeg
from live2diff_trt.serve.settings import Limits
from tests.serve.conftest import Serve
from tests.serve.made_up_server import picture

DOCS = Path(__file__).parents[2] / "docs" / "serve.md"


def test_the_client_gets_changed_pictures(serve: Serve, tiny_bundle: Path, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(program.strip().splitlines()) <= 22
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for number in range(30):
        (folder / f"{number:03}.jpg").write_bytes(encode_jpeg(picture(8 * number, 90, 160)))
    server = serve(open_shared_engine(tiny_bundle, OnnxRuntimeOptions(threads=1)), limits=Limits())
    words = [f"127.0.0.1:{server.port}", str(folder), str(out)]
    result = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    files = sorted(out.iterdir())
    assert len(files) >= 3
    shown = decode_jpeg(files[-1].read_bytes(), 64 * 64)
    assert np.ptp(shown) > 50  # what went in was flat
