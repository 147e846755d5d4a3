"""Which files hold a network's weights where diffusers or transformers saved it, and what is in them.

Both save a network in one file, or in shards that an index lists; in full precision, or rounded, as the variant fp16.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from live2diff_trt.export.checkpoint_file import read_tensors
from live2diff_trt.export.errors import CheckpointError

Suffix = Literal["safetensors", "bin"]
Stems = Mapping[Suffix, str]
"""What a library calls its weights, by the format that it saves them in; the format to prefer is first."""

DIFFUSERS: Stems = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
TRANSFORMERS: Stems = {"safetensors": "model", "bin": "pytorch_model"}
# Weights are merged in float32, so what was never rounded comes first.
_VARIANTS = (None, "fp16")
_FETCH_AGAIN = "Fetch the folder again, whole"


@dataclass(frozen=True)
class WeightsNames:
    """The names of the files that one network is read from.

    Attributes:
        suffix: their format.
        variant: fp16, or None for full precision.
        index: the file that lists the shards; None where there are none.
        weights: the one file, or all shards, in order.
    """

    suffix: Suffix
    variant: str | None
    index: str | None
    weights: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """The index, if there is one, then the weights."""
        return self.weights if self.index is None else (self.index, *self.weights)


@dataclass(frozen=True)
class FolderWeights:
    """The weights of a network in a folder on this machine."""

    folder: Path
    names: WeightsNames

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(self.folder / name for name in self.names.all)

    @property
    def loading_options(self) -> dict[str, Any]:
        """What makes ``from_pretrained`` of diffusers and transformers read these files and no others."""
        return {"variant": self.names.variant, "use_safetensors": self.names.suffix == "safetensors"}

    def read(self) -> dict[str, Tensor]:
        """Return all tensors as stored; raise CheckpointError if a file can't be read, or two hold the same key."""
        weights: dict[str, Tensor] = {}
        for name in self.names.weights:
            found = read_tensors(self.folder / name)
            if twice := weights.keys() & found.keys():
                raise CheckpointError(
                    f"{self.folder / name} holds what another shard holds too: {', '.join(sorted(twice))}", _FETCH_AGAIN
                )
            weights |= found
        return weights


def open_weights(folder: Path, stems: Stems) -> FolderWeights:
    """Choose among the weights in a folder as ``choose_weights`` does, and compare shards with their index.

    Raises:
        CheckpointError: if there are none, it is not clear which are meant, or naming shards that are missing or
            belong to none.
    """
    present = {file.name for file in folder.iterdir()} if folder.is_dir() else set[str]()
    names = choose_weights(present, stems, str(folder))
    if names.index is not None:
        _check_shards(folder / names.index, names.weights)
    return FolderWeights(folder, names)


def choose_weights(present: Collection[str], stems: Stems, where: str) -> WeightsNames:
    """Choose among the weights of a network: full precision before fp16, then safetensors before .bin.

    Args:
        present: the names of all files in its folder.
        stems: of the library that saved it.
        where: what the folder is called in messages.

    Raises:
        CheckpointError: if there are none, or both one file and shards, or shards without an index.
    """
    for variant in _VARIANTS:
        for suffix, stem in stems.items():
            found = _match(present, stem, suffix, variant, where)
            if found is not None:
                return found
    wanted = " nor ".join(f"{stem}.{suffix}" for suffix, stem in stems.items())
    raise CheckpointError(
        f"{where} has neither {wanted}, nor shards or a variant fp16 of them",
        "Name a folder that diffusers or transformers saved, whole",
    )


def _match(present: Collection[str], stem: str, suffix: Suffix, variant: str | None, where: str) -> WeightsNames | None:
    """Return the files of one stem, format and variant, or None if there is no trace of them."""
    mark = "" if variant is None else f".{variant}"
    whole, index = f"{stem}{mark}.{suffix}", f"{stem}.{suffix}.index{mark}.json"
    shard = re.compile(rf"{re.escape(stem + mark)}-\d+-of-\d+\.{suffix}")
    shards = tuple(sorted(name for name in present if shard.fullmatch(name)))
    indices = [index] if index in present else []
    if whole in present and (others := [*indices, *shards]):
        # diffusers would read the shards, transformers the one file.
        raise CheckpointError(
            f"{where} has {whole} and shards of it ({', '.join(others)})", "Remove the one or the other"
        )
    if whole in present:
        return WeightsNames(suffix, variant, None, (whole,))
    if indices:
        return WeightsNames(suffix, variant, index, shards)
    if shards:
        raise CheckpointError(f"{where} has {', '.join(shards)} without their {index}", _FETCH_AGAIN)
    return None


def _check_shards(index: Path, present: Collection[str]) -> None:
    """Raise CheckpointError, naming them all, unless the index lists exactly the shards that are there."""
    try:
        listed = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} can't be read as an index of shards ({error!r})", _FETCH_AGAIN) from error
    problems = [f"missing {name}" for name in sorted(listed.difference(present))]
    problems += [f"not in the index {name}" for name in sorted(set(present) - listed)]
    if problems:
        raise CheckpointError(
            f"{len(problems)} shards of {index} are not as it says:\n  " + "\n  ".join(problems), _FETCH_AGAIN
        )
