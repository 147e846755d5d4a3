"""Autoencoders from folders: both kinds, old names of the attention's weights, and nothing missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from live2diff_trt.export.autoencoder import random_autoencoder
from live2diff_trt.export.autoencoder_files import load_autoencoder
from live2diff_trt.export.errors import CheckpointError
from tests.export.made_up_models import make_autoencoder

WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def test_a_tiny_autoencoder_comes_back(tmp_path: Path) -> None:
    saved = random_autoencoder("tiny", 0, torch.float32)
    saved.save_pretrained(tmp_path)
    loaded = load_autoencoder(tmp_path)
    assert type(loaded) is type(saved)
    assert all(torch.equal(tensor, saved.state_dict()[key]) for key, tensor in loaded.state_dict().items())


def test_the_published_names_of_attention_are_understood(tmp_path: Path) -> None:
    saved = make_autoencoder()
    saved.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    for ours, old in OLD_NAMES.items():
        renamed = {key: key.replace(f"attentions.0.{ours}.", f"attentions.0.{old}.") for key in weights}
        weights = {renamed[key]: tensor for key, tensor in weights.items()}
    assert any("proj_attn" in key for key in weights)
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    loaded = load_autoencoder(tmp_path).state_dict()
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in saved.state_dict().items())


def test_keys_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    make_autoencoder().save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    del weights["quant_conv.bias"], weights["decoder.conv_in.weight"]
    save_file({**weights, "extra": torch.zeros(1)}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="3 keys") as caught:
        load_autoencoder(tmp_path)
    for line in ("unexpected extra", "missing quant_conv.bias", "missing decoder.conv_in.weight"):
        assert line in caught.value.problem


def test_another_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(CheckpointError, match="holds a VQModel"):
        load_autoencoder(tmp_path)
