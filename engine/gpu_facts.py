"""What is known of plans only after a GPU opened them, kept beside them: compiled kernels, measured sizes.

It is a cache: what is missing, torn or of another GPU or driver is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from live2diff_trt.engine.gpu import Gpu

logger = logging.getLogger(__name__)


class GpuFacts:
    """The cache files of one set of plans on one GPU with one driver."""

    def __init__(self, folder: Path, gpu: Gpu) -> None:
        self._runtime_cache = folder / f"runtime_cache-{gpu.slug}.cache"
        self._measured = folder / f"measured-{gpu.slug}.cache"

    def load_runtime_cache(self) -> bytes | None:
        """Return the kernels that TensorRT-RTX compiled earlier, or None."""
        return _load(self._runtime_cache)

    def save_runtime_cache(self, cache: bytes) -> None:
        """Keep compiled kernels for the next process. Replaces the file at once; the log says if that fails."""
        _save(self._runtime_cache, cache)

    def load_measured(self) -> dict[str, Any]:
        """Return what ``save_measured`` kept; nothing where there is nothing."""
        text = _load(self._measured)
        return {} if text is None else json.loads(text)

    def save_measured(self, facts: Mapping[str, Any]) -> None:
        """Keep JSON values, as bytes of scratch memory per plan. Replaces the file at once."""
        _save(self._measured, json.dumps(dict(facts)).encode())


def _load(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s can't be read (%s); it is made again", path, error)
        return None
    header, _, payload = content.partition(b"\n")
    if header != _head(payload):
        logger.warning("%s is torn or was changed; it is made again", path)
        return None
    return payload


def _save(path: Path, payload: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        scratch.write_bytes(_head(payload) + b"\n" + payload)
        scratch.replace(path)
    except OSError as error:  # plans on a read-only disk still run
        logger.warning("%s can't be written (%s); the next start takes longer", path, error)
        with suppress(OSError):
            scratch.unlink()


def _head(payload: bytes) -> bytes:
    """Return a file's first line, by which a torn or changed one is known."""
    return b"sha256 " + hashlib.sha256(payload).hexdigest().encode()
