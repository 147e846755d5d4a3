"""Weights that ship with the project: what is saved is what a bundle is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.export.bundle import export_bundle
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.trained_weights import TrainedWeights
from live2diff_trt.export.weights_source import PARTS, RandomWeights

LARGEST_BYTES = {"unet": 4.5e6, "autoencoder": 1.5e6, "text_encoder": 1e6, "depth": 0.5e6}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> TrainedWeights:
    weights, random = TrainedWeights(tmp_path_factory.mktemp("weights")), RandomWeights(seed=4)
    weights.save("unet", random.unet(TINY, torch.float32))
    weights.save("autoencoder", random.autoencoder(TINY, torch.float32))
    weights.save("depth", random.depth(TINY, torch.float32))
    weights.save("text_encoder", random.text_encoder(TINY, torch.float32))
    return weights


def test_what_was_saved_is_loaded_rounded_to_half(weights: TrainedWeights) -> None:
    for part in PARTS:
        saved = getattr(RandomWeights(seed=4), part)(TINY, torch.float32).state_dict()
        loaded = getattr(weights, part)(TINY, torch.float32).state_dict()
        assert {key: tensor.dtype for key, tensor in loaded.items()} == dict.fromkeys(saved, torch.float32)
        for key, tensor in saved.items():
            torch.testing.assert_close(loaded[key], tensor.half().float(), rtol=0, atol=0)


def test_every_part_is_small(weights: TrainedWeights) -> None:
    for part, most in LARGEST_BYTES.items():
        assert weights.file(part).stat().st_size <= most  # type: ignore[arg-type]


def test_a_bundle_is_made_of_them_and_says_so(weights: TrainedWeights, tmp_path: Path) -> None:
    export_bundle(replace(TINY, width=64, height=64), weights, tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert {part: manifest.weights[part]["file"] for part in PARTS} == {part: f"{part}.safetensors" for part in PARTS}
    assert all(record["source"] == "trained by live2diff-trt" for record in manifest.weights.values())


def test_missing_files_are_named_with_what_to_do(weights: TrainedWeights, tmp_path: Path) -> None:
    weights.check()
    with pytest.raises(CheckpointError, match=r"lacks unet\.safetensors: .*--random-weights"):
        TrainedWeights(tmp_path).unet(TINY, torch.float32)
    with pytest.raises(CheckpointError, match=r"lacks unet\.safetensors, autoencoder\.safetensors, "):
        TrainedWeights(tmp_path).check()
