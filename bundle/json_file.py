"""JSON files that are there complete, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a file in one go: it is there complete, or as it was. Folders above it are made."""
    text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
