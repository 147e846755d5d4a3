"""ONNX Runtime keeps to itself: nothing is reported, and nothing is left in the user's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from live2diff_trt.engine.onnxruntime_module import import_onnxruntime

SWITCH = "ORT_DISABLE_TELEMETRY"
PROGRAM = """
from live2diff_trt.engine.onnxruntime_module import import_onnxruntime
runtime = import_onnxruntime()
runtime.SessionOptions(), runtime.get_available_providers()
"""


def test_its_import_leaves_nothing_behind(tmp_path: Path) -> None:
    others = {name: value for name, value in os.environ.items() if name != SWITCH and not name.startswith("XDG_")}
    subprocess.run([sys.executable, "-c", PROGRAM], env={**others, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []


def test_who_has_chosen_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    import_onnxruntime()
    assert os.environ[SWITCH] == "0"
