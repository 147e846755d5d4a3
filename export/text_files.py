"""The text encoder and its tokenizer from files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.tokenizer import END_TOKEN, START_TOKEN, assemble_tokenizer
from live2diff_trt.model.weights import check_keys

_WRAPPER = "text_model."
_NO_WEIGHT = "position_ids"
_REMEDY = "Name a folder with CLIP's tokenizer.json, or its vocab.json and merges.txt"


def build_from_weights(configuration: CLIPTextConfig, weights: Mapping[str, Tensor], origin: str) -> CLIPTextModel:
    """Build a text encoder in evaluation mode, float32; raise WeightsError, listing every key that does not fit."""
    model = CLIPTextModel(configuration).float()
    replace_text_weights(model, weights, origin)
    return model.eval().requires_grad_(False)


def replace_text_weights(model: CLIPTextModel, weights: Mapping[str, Tensor], origin: str) -> None:
    """Replace all weights in place, as float32; raise WeightsError, listing every key that does not fit.

    Keys may begin with ``text_model.`` or not: publishers and versions of transformers differ.
    """
    prefix = _WRAPPER if hasattr(model, "text_model") else ""
    named = {
        prefix + key.removeprefix(_WRAPPER): tensor
        for key, tensor in weights.items()
        if not key.endswith(_NO_WEIGHT)  # old files save it
    }
    check_keys(model, named, origin)
    model.load_state_dict({key: tensor.float() for key, tensor in named.items()})


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read CLIP's tokenizer, without padding and truncation: from tokenizer.json, or else vocab.json and merges.txt.

    Raises:
        CheckpointError: if the folder has neither, or they are not CLIP's.
    """
    whole, *others = tokenizer_files(folder)
    tokenizer = _read_vocabulary(folder) if others else _read_whole(whole)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if None in (tokenizer.token_to_id(token) for token in (START_TOKEN, END_TOKEN)):
        raise CheckpointError(f"the tokenizer of {folder} lacks {START_TOKEN} or {END_TOKEN}", _REMEDY)
    return tokenizer


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that ``read_tokenizer`` reads; raise CheckpointError if they are not there."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return tuple(folder / name for name in choose_tokenizer(names, str(folder)))


def choose_tokenizer(names: Collection[str], where: str) -> tuple[str, ...]:
    """Choose a tokenizer's files by name; raise CheckpointError, which calls the folder ``where``, if it has none."""
    for wanted in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        if all(name in names for name in wanted):
            return wanted
    raise CheckpointError(f"{where} has no tokenizer", _REMEDY)


def _read_whole(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    # The library raises plain Exception, and nothing narrower, for a file it can't read.
    except Exception as error:
        raise CheckpointError(f"{path} is not a tokenizer ({error})", _REMEDY) from error


def _read_vocabulary(folder: Path) -> Tokenizer:
    try:
        vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        pairs = [line.split() for line in lines if line and not line.startswith("#version")]
        merges = [(first, second) for first, second in pairs]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the tokenizer of {folder} can't be read ({error})", _REMEDY) from error
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise CheckpointError(f"the ids of {folder / 'vocab.json'} are not consecutive", _REMEDY)
    if START_TOKEN not in vocabulary or END_TOKEN not in vocabulary:
        raise CheckpointError(f"{folder / 'vocab.json'} lacks {START_TOKEN} or {END_TOKEN}", _REMEDY)
    return assemble_tokenizer(tokens, merges)
