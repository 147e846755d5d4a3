"""Autoencoders from files: what diffusers saved, or the autoencoder's keys of the LDM layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from torch import Tensor

from live2diff_trt.export.autoencoder import Autoencoder, build_autoencoder
from live2diff_trt.export.checkpoint_file import read_tensors
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.weights_files import DIFFUSERS, open_weights
from live2diff_trt.model.weights import check_keys

_CLASSES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def load_autoencoder(path: Path) -> Autoencoder:
    """Load an autoencoder, float32, from a folder that diffusers saved or from one file in the LDM layout (KL).

    Raises:
        CheckpointError: if it is neither.
        WeightsError: listing every key that does not fit.
    """
    if path.is_dir():
        return load_autoencoder_folder(path)
    autoencoder = build_autoencoder("kl")
    weights = convert_ldm_vae_checkpoint(read_tensors(path), autoencoder.config)
    load_autoencoder_weights(autoencoder, weights, str(path))
    return autoencoder


def load_autoencoder_folder(folder: Path) -> Autoencoder:
    """Load what diffusers saved: an AutoencoderKL or an AutoencoderTiny, float32.

    diffusers itself reads it, because it knows the older names of the attention's weights.
    """
    kind = _read_class_name(folder)
    weights = open_weights(folder, DIFFUSERS)
    try:
        autoencoder, report = _CLASSES[kind].from_pretrained(
            folder,
            local_files_only=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            **weights.loading_options,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} can't be read by diffusers ({error})", "Fetch it again, whole") from error
    problems = [f"{what} {key}" for what in ("unexpected", "missing") for key in report[f"{what}_keys"]]
    if problems:
        raise CheckpointError(
            f"{len(problems)} keys of {folder} do not fit the network:\n  " + "\n  ".join(problems),
            "Use the weights and the config.json of the same network",
        )
    return autoencoder


def load_autoencoder_weights(autoencoder: Autoencoder, weights: Mapping[str, Tensor], origin: str) -> None:
    """Replace all weights in place, as float32; raise WeightsError, listing every key that does not fit."""
    check_keys(autoencoder, weights, origin)
    autoencoder.load_state_dict({key: tensor.float() for key, tensor in weights.items()})


def autoencoder_files(path: Path) -> tuple[Path, ...]:
    """Return the files that ``load_autoencoder`` reads."""
    if path.is_file():
        return (path,)
    return path / "config.json", *open_weights(path, DIFFUSERS).files


def _read_class_name(folder: Path) -> str:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} has no config.json of diffusers ({error!r})", "Name its folder") from error
    if kind not in _CLASSES:
        raise CheckpointError(f"{folder} holds a {kind}", f"Use one of {', '.join(_CLASSES)}")
    return str(kind)
