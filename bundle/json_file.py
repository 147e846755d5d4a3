"""JSON files that are there complete, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live2diff_trt.bundle.errors import NotWritableError
from live2diff_trt.bundle.replaced import replacing_file


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a file in one go: it is there complete, or as it was. Folders above it are made.

    Raises:
        NotWritableError: if it can't be written, or what is there is in use and can't be replaced.
    """
    text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as scratch:
            scratch.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise NotWritableError(path, error) from error
