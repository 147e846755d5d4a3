"""Where this project keeps what it can make again: plans, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the folder: LIVE2DIFF_TRT_CACHE, or ``live2diff-trt`` in the user's own cache. It may not exist yet."""
    if chosen := os.environ.get("LIVE2DIFF_TRT_CACHE"):
        return Path(chosen)
    variable, usual = ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_CACHE_HOME", ".cache")
    caches = os.environ.get(variable)
    return (Path(caches) if caches else Path.home() / usual) / "live2diff-trt"
