"""A style delta: what takes the place of a bundle's weights, in one file that holds only what differs.

The file is safetensors, by the names of the bundle's initialisers. Its metadata says which bundle it belongs to, where
the weights came from, and what every prompt is put into; a hash over all of that and every tensor proves it unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from live2diff_trt import __version__
from live2diff_trt.bundle.errors import OutputExistsError, RestyleError
from live2diff_trt.bundle.manifest import PROMPT_PLACE
from live2diff_trt.bundle.replaced import replacing_file

FORMAT = "live2diff-trt style 1"
_MAKE_AGAIN = "Make it again with `live2diff-trt restyle BUNDLE --out STYLE.safetensors`"
_HASHING_THREADS = 8  # hashing lets go of the interpreter
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""By the names that safetensors gives them."""

Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class StyleDelta:
    """What is another's than the bundle's.

    Attributes:
        values: initialisers of the UNet's graphs and of the text encoder that differ, by name.
        bundle_digest: ``Bundle.digest`` of the bundle that it belongs to.
        prompt_template: what every prompt is put into, where ``PROMPT_PLACE`` stands.
        sources: for the parts ``unet`` and ``text_encoder``, where the weights came from, as in a bundle's manifest.
        identity: what no other style has.
        origin: its file or bundle, for messages.
    """

    values: Values
    bundle_digest: str
    prompt_template: str = PROMPT_PLACE
    sources: Mapping[str, Any] = field(default_factory=dict)
    identity: str = ""
    origin: str = ""


def write_style_delta(path: Path, delta: StyleDelta, *, overwrite: bool = False) -> None:
    """Write a delta. It appears complete or not at all.

    Raises:
        OutputExistsError: if something is at ``path`` and ``overwrite`` is not given.
        RestyleError: if it can't be written; on Windows, where a style that is in use can't be replaced, too.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(path)
    values = {name: np.ascontiguousarray(values) for name, values in sorted(delta.values.items())}
    described = {
        "format": FORMAT,
        "generator": f"live2diff-trt {__version__}",
        "bundle": delta.bundle_digest,
        "prompt_template": delta.prompt_template,
        "sources": json.dumps(delta.sources),
    }
    try:
        with replacing_file(path) as scratch:
            save_file(values, scratch, {**described, "sha256": _hash(described, values)})
    except (OSError, SafetensorError) as error:
        raise RestyleError(
            f"{path} can't be written ({error})",
            "End the streams that use it, free space there, or choose another place",
        ) from error


def read_style_delta(path: Path) -> StyleDelta:
    """Read a delta and verify it; raise RestyleError if it is missing, none, of another format, or was changed.

    Its values are mapped from the file, which must not be written in place as long as they are in use.
    """
    described, values = _read(path)
    sha256 = described.pop("sha256", "")
    if sha256 != _hash(described, values):
        del values  # as long as the error is kept, the file would be mapped, and on Windows not be replaced
        raise RestyleError(f"{path} does not have the hash it records: it was changed or damaged", _MAKE_AGAIN)
    return StyleDelta(
        values,
        described["bundle"],
        described["prompt_template"],
        json.loads(described["sources"]),
        identity=sha256,
        origin=str(path),
    )


def _read(path: Path) -> tuple[dict[str, str], Values]:
    if not path.is_file():
        raise RestyleError(f"there is no style at {path}", "Mend the path, or make one with `live2diff-trt restyle`")
    try:
        with safe_open(path, framework="numpy") as file:  # which checks the header
            described = dict(file.metadata() or {})
        _refuse_another_format(path, described.get("format"))
        return described, _map_tensors(path)
    except (OSError, SafetensorError, KeyError) as error:
        raise RestyleError(f"{path} can't be read as safetensors ({error})", _MAKE_AGAIN) from error


def _refuse_another_format(path: Path, found: str | None) -> None:
    if found != FORMAT:
        raise RestyleError(f"{path} is no style of this version: its format is {found!r}, not {FORMAT!r}", _MAKE_AGAIN)


def _map_tensors(path: Path) -> Values:
    """Map every tensor from a file whose header was checked; safetensors itself would copy them, one by one."""
    header, begin = _read_header(path)
    dtypes = {name: _DTYPES[tensor["dtype"]] for name, tensor in header.items()}
    data = np.memmap(path, np.uint8, "r")  # nothing is refused any more: an error would keep the file mapped
    found: dict[str, NDArray[Any]] = {}
    for name, tensor in header.items():
        first, end = tensor["data_offsets"]
        values: NDArray[Any] = data[begin + first : begin + end].view(dtypes[name])
        found[name] = np.asarray(values.reshape(tensor["shape"]))
    return found


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return what is said of each tensor, and where the data begin: behind the header's length and the header."""
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(header_bytes))
    header.pop("__metadata__", None)
    return header, 8 + header_bytes


def _hash(described: Mapping[str, str], values: Values) -> str:
    """Return the sha256 of what describes a delta, and of the sha256 of every tensor by name."""
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        hashes = dict(zip(values, pool.map(_hash_tensor, values.values()), strict=True))
    return hashlib.sha256(json.dumps([described, hashes], sort_keys=True).encode()).hexdigest()


def _hash_tensor(values: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
