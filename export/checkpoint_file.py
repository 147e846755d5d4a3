"""Reading the files that weights come in. Nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from live2diff_trt.export.errors import CheckpointError

WEIGHTS_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")
_PARALLEL_PREFIX = "module."
_UNUSED_MARK = "grid"


def read_tensors(path: Path, prefixes: Iterable[str] = ("",)) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or pickled file whose keys begin with one of ``prefixes``, as stored.

    A state dict inside ``state_dict`` is unwrapped; entries that are no tensors are left out.

    Raises:
        CheckpointError: if the file can't be read, or holds code.
    """
    wanted = tuple(prefixes)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, wanted)
    return {
        key: value
        for key, value in _unwrap(read_pickled(path)).items()
        if isinstance(key, str) and key.startswith(wanted) and isinstance(value, Tensor)
    }


def read_motion(path: Path) -> dict[str, Tensor]:
    """Return a Live2Diff checkpoint by the network's own keys: no ``module.`` before them, no ``grid`` tables."""
    return {
        key.removeprefix(_PARALLEL_PREFIX): tensor
        for key, tensor in read_tensors(path).items()
        if _UNUSED_MARK not in key
    }


def find_only_weights_file(path: Path) -> Path:
    """Return ``path`` if it is a file, or else the one weights file in that folder.

    Raises:
        CheckpointError: if the folder has none, or several.
    """
    if path.is_file():
        return path
    return path / choose_only_weights_file([file.name for file in path.iterdir()], str(path))


def choose_only_weights_file(names: Collection[str], where: str) -> str:
    """Return the one name of a weights file; raise CheckpointError, which calls the folder ``where``, if it is not one.

    What lies in folders below is not looked at, and neither is a pickled file beside a .safetensors of its name.
    """
    weights = {name for name in names if name.endswith(WEIGHTS_SUFFIXES) and "/" not in name}
    found = sorted(name for name in weights if _as_safetensors(name) not in weights - {name})
    if len(found) != 1:
        raise CheckpointError(
            f"{where} should hold one file of weights, and holds {', '.join(found) or 'none'}", "Name the file itself"
        )
    return found[0]


def _as_safetensors(name: str) -> str:
    return Path(name).with_suffix(".safetensors").name


def _read_safetensors(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefixes)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read as safetensors ({error})", "Fetch it again, whole") from error


def read_pickled(path: Path) -> Mapping[Any, Any]:
    """Return what a pickled file holds, as stored; raise CheckpointError if that is no table, or holds code."""
    try:
        # Mapped where the format allows it: a file of many gigabytes is mostly not looked at.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no plain checkpoint: it is damaged, or holds code beside tensors, which is not run",
            "Use its .safetensors form, or save its state dict alone with torch.save",
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path} can't be read ({error})", "Fetch it again, whole") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} where a state dict should be", "Name a checkpoint of weights"
        )
    return content


def _unwrap(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    while isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    return content
