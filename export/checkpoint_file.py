"""Reading the files that weights come in. Nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
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
        for key, value in _unwrap(_read_pickled(path)).items()
        if isinstance(key, str) and key.startswith(wanted) and isinstance(value, Tensor)
    }


def read_motion(path: Path) -> dict[str, Tensor]:
    """Return a Live2Diff checkpoint by the network's own keys: no ``module.`` before them, no ``grid`` tables."""
    return {
        key.removeprefix(_PARALLEL_PREFIX): tensor
        for key, tensor in read_tensors(path).items()
        if _UNUSED_MARK not in key
    }


def find_weights_file(folder: Path, stem: str) -> Path:
    """Return ``stem``.safetensors of a folder, or else ``stem``.bin; raise CheckpointError if there is neither."""
    for suffix in (".safetensors", ".bin"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise CheckpointError(
        f"{folder} has neither {stem}.safetensors nor {stem}.bin",
        "Name a folder that diffusers or transformers saved, whole and in one piece",
    )


def find_only_weights_file(path: Path) -> Path:
    """Return ``path`` if it is a file, or else the one weights file in that folder.

    Raises:
        CheckpointError: if the folder has none, or several.
    """
    if path.is_file():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix in WEIGHTS_SUFFIXES)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(f"{path} should hold one file of weights, and holds {names}", "Name the file itself")
    return found[0]


def _read_safetensors(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefixes)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read as safetensors ({error})", "Fetch it again, whole") from error


def _read_pickled(path: Path) -> Mapping[Any, Any]:
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
