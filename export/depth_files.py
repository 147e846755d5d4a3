"""Depth networks from folders that transformers saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForDepthEstimation

from live2diff_trt.export.depth import DepthKind
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.weights_files import TRANSFORMERS, open_weights

_KINDS: dict[str, DepthKind] = {"dpt": "dpt-hybrid", "depth_anything": "depth-anything-small"}
# DPT has it and never calls it, so its publishers left it out.
_NEVER_CALLED = "neck.fusion_stage.layers.0.residual_layer1."


def read_depth_kind(folder: Path) -> DepthKind:
    """Return which of the known kinds a folder holds; raise CheckpointError if it is none of them."""
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} has no config.json of a depth network ({error!r})", "Name a folder that transformers saved"
        ) from error
    if model_type not in _KINDS:
        raise CheckpointError(f"{folder} holds a {model_type}", f"Use one of {', '.join(_KINDS)}")
    return _KINDS[model_type]


def load_depth(folder: Path) -> nn.Module:
    """Load a depth network, float32; raise CheckpointError, listing every key that does not fit."""
    weights = open_weights(folder, TRANSFORMERS)
    try:
        network, report = AutoModelForDepthEstimation.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **weights.loading_options
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} can't be read by transformers ({error})", "Fetch it again, whole") from error
    problems = [f"unexpected {key}" for key in sorted(report["unexpected_keys"])]
    problems += [f"missing {key}" for key in sorted(report["missing_keys"]) if not key.startswith(_NEVER_CALLED)]
    if problems:
        raise CheckpointError(
            f"{len(problems)} keys of {folder} do not fit the network:\n  " + "\n  ".join(problems),
            "Use the weights and the config.json of the same network",
        )
    return cast("nn.Module", network)


def depth_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that ``load_depth`` reads."""
    return folder / "config.json", *open_weights(folder, TRANSFORMERS).files
