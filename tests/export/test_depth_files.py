"""Depth networks from folders: published ones lack what is never called, and may lack nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from live2diff_trt.export.depth import DepthGraph
from live2diff_trt.export.depth_files import load_depth, read_depth_kind
from live2diff_trt.export.errors import CheckpointError
from tests.export.made_up_models import write_depth

UNCALLED = "neck.fusion_stage.layers.0.residual_layer1."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_depth(tmp_path)
    return tmp_path


def drop(folder: Path, start: str) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in weights.items() if not key.startswith(start)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def run(folder: Path) -> torch.Tensor:
    picture = torch.linspace(-1, 1, 3 * 384 * 384).reshape(1, 3, 384, 384)
    with torch.no_grad():
        (depth,) = DepthGraph(load_depth(folder))((picture,))
    return depth


def test_what_is_never_called_may_be_missing(folder: Path) -> None:
    whole = run(folder)
    drop(folder, UNCALLED)
    torch.testing.assert_close(run(folder), whole, rtol=0, atol=0)
    assert whole.shape == (1, 384, 384)


def test_what_is_called_may_not(folder: Path) -> None:
    drop(folder, "head.head.0.")
    with pytest.raises(CheckpointError, match=r"2 keys(.|\n)*missing head\.head\.0\.bias"):
        load_depth(folder)


def test_the_kind_follows_from_the_configuration(folder: Path) -> None:
    assert read_depth_kind(folder) == "dpt-hybrid"
    configuration = json.loads((folder / "config.json").read_text())
    for kind, expected in (("depth_anything", "depth-anything-small"), ("glpn", None)):
        (folder / "config.json").write_text(json.dumps({**configuration, "model_type": kind}))
        if expected is not None:
            assert read_depth_kind(folder) == expected
    with pytest.raises(CheckpointError, match="holds a glpn"):
        read_depth_kind(folder)
