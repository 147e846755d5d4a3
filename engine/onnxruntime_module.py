"""ONNX Runtime, imported so that it keeps to itself."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """Import ONNX Runtime; raise ImportError where it is not installed.

    Since 1.29 it reports its use to Microsoft, and keeps a number for the machine in the user's cache, unless it is
    told not to before it is loaded. A choice that was made in the environment stays.
    """
    os.environ.setdefault(_TELEMETRY, "1")
    return import_module("onnxruntime")
