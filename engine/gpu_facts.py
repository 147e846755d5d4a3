"""What is known of plans only after a GPU opened them, kept beside them: compiled kernels, measured sizes.

It is a cache: what is missing, torn or of another GPU or driver is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live2diff_trt.bundle.replaced import replacing_file
from live2diff_trt.engine.gpu import Gpu

logger = logging.getLogger(__name__)


class GpuFacts:
    """The cache files of one set of plans on one GPU with one driver.

    Sizes are the same on all GPUs of a kind. Compiled kernels are kept by the card: TensorRT-RTX 1.6.1 takes none that
    were compiled beside another one.
    """

    def __init__(self, folder: Path, gpu: Gpu) -> None:
        self._runtime_caches = folder / f"runtime_caches-{gpu.card_slug}.cache"
        self._measured = folder / f"measured-{gpu.slug}.cache"

    def load_runtime_caches(self) -> dict[str, bytes]:
        """Return the kernels that TensorRT-RTX compiled earlier, by the structure of plans; maybe none."""
        content = _load(self._runtime_caches)
        return {} if content is None else _split(content)

    def save_runtime_caches(self, caches: Mapping[str, bytes]) -> None:
        """Keep compiled kernels for the next process. Replaces the file at once; the log says if that fails."""
        _save(self._runtime_caches, _join(caches))

    def load_measured(self) -> dict[str, Any]:
        """Return what ``save_measured`` kept; nothing where there is nothing."""
        text = _load(self._measured)
        return {} if text is None else json.loads(text)

    def save_measured(self, facts: Mapping[str, Any]) -> None:
        """Keep JSON values, as bytes of scratch memory per plan. Replaces the file at once."""
        _save(self._measured, json.dumps(dict(facts)).encode())


def _join(parts: Mapping[str, bytes]) -> bytes:
    """Return names and sizes in a first line, then everything."""
    sizes = json.dumps({name: len(part) for name, part in parts.items()})
    return b"".join([sizes.encode(), b"\n", *parts.values()])


def _split(content: bytes) -> dict[str, bytes]:
    """Return what ``_join`` was given."""
    sizes, _, rest = content.partition(b"\n")
    parts: dict[str, bytes] = {}
    begin = 0
    for name, size in json.loads(sizes).items():
        parts[name] = rest[begin : begin + size]
        begin += size
    return parts


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
    try:
        with replacing_file(path) as scratch:
            scratch.write_bytes(_head(payload) + b"\n" + payload)
    except OSError as error:  # plans on a read-only disk still run
        logger.warning("%s can't be written (%s); the next start takes longer", path, error)


def _head(payload: bytes) -> bytes:
    """Return a file's first line, by which a torn or changed one is known."""
    return b"sha256 " + hashlib.sha256(payload).hexdigest().encode()
