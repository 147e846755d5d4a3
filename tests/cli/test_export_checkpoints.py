"""Exporting trained weights as a person does: files of every real layout in, a bundle that streams out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]

from live2diff_trt.cli.checkpoint_options import CheckpointOptions, LoraAlpha, read_scaled, read_token
from tests.cli.test_commands import command, refused
from tests.export.made_up_models import Models, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return write_models(tmp_path_factory.mktemp("models"))


def test_a_style_becomes_a_bundle_that_streams(models: Models, tmp_path: Path) -> None:
    from live2diff_trt.bundle.manifest import Bundle
    from live2diff_trt.export.checkpoint_names import CheckpointNames, locate_checkpoints
    from live2diff_trt.export.presets import TINY
    from live2diff_trt.export.tokenizer import make_tokenizer
    from live2diff_trt.runtime.stream import Stream

    torch.save({"emb_params": torch.randn(2, 32)}, models.folder / "fox.pt")
    style = {
        "pretrained_model_path": "base",
        "motion_module_path": "live2diff.ckpt",
        "depth_model_path": "depth",
        "prompt_template": "{}, ink",
        "strength": 0.6,
        "third_party_dict": {
            "dreambooth": "dreambooth.safetensors",
            "lora_list": [{"lora": "kohya.safetensors", "lora_alpha": 0.5}],
            "text_embedding_dict": {"<fox>": "fox.pt"},
        },
    }
    (models.folder / "style.yaml").write_text(yaml.safe_dump(style))
    out = tmp_path / "bundle"
    words = ["--size", "64x64", "--style", models.folder / "style.yaml", "--lora", f"{models.lora}:0.8"]
    words += ["--lora", models.kohya, "--lcm-lora", models.lcm, "--lora-alpha", "ignore", "--clip-skip", 0]
    result = command("export", "--preset", "tiny", "--out", out, "--offline", *words)
    assert result.returncode == 0, result.stderr

    manifest = Bundle.open(out).manifest
    files = manifest.weights["unet"]["files"]
    loras = [(one["file"], one["scale"], one["alpha"]) for one in files if one["role"] == "lora"]
    assert loras == [
        ("pytorch_lora_weights.safetensors", 0.8, "ignored"),
        ("kohya.safetensors", 1.0, "ignored"),
        ("lcm.safetensors", 1.0, "applied"),
    ]
    assert manifest.weights["text_encoder"]["prompt_template"] == "{}, ink"
    assert manifest.weights["text_encoder"]["files"][-1]["tokens"] == ["<fox>", "<fox>_1"]
    assert all(len(one["sha256"]) == 64 for part in manifest.weights.values() for one in part["files"])
    assert (manifest.spec.step_list, manifest.spec.depth_size) == ((20, 35), 384)
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    assert tokenizer["model"]["vocab"] == make_tokenizer("tiny").get_vocab(with_added_tokens=True)
    assert [token["content"] for token in tokenizer["added_tokens"]][-2:] == ["<fox>", "<fox>_1"]
    assert (
        locate_checkpoints(  # the library finds the same files
            CheckpointNames(str(models.base), str(models.motion), depth=str(models.depth), offline=True), TINY
        )
        .fit(TINY)
        .depth
        == "dpt-hybrid"
    )

    with Stream.open(out, prompt="a red <fox>") as stream:
        pictures = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
        frames = [frame for picture in pictures for frame in stream(picture)] + list(stream.flush())
    assert len(frames) == 9
    assert all(np.std(frame.image) > 1 for frame in frames)


def test_options_that_do_not_go_together_are_refused(models: Models, tmp_path: Path) -> None:
    export = ["export", "--preset", "tiny", "--out", tmp_path / "bundle", "--offline"]
    assert "--motion is missing" in refused(*export, "--base", models.base)
    both = ["--base", models.base, "--motion", models.motion]
    assert "exclude each other" in refused(*export, *both, "--random-weights")
    assert "without a base model" in refused(*export, "--vae", models.base / "vae")
    assert not (tmp_path / "bundle").exists()


def test_options_win_over_the_style(tmp_path: Path) -> None:
    from live2diff_trt.export.style import read_style

    third_party = {"lora_list": [{"lora": "a/b"}], "text_embedding_dict": {"<ink>": "a/ink"}}
    models = {"pretrained_model_path": "a/base", "motion_module_path": "a/motion"}
    (tmp_path / "style.yaml").write_text(yaml.safe_dump({**models, "third_party_dict": third_party}))
    style = read_style(tmp_path / "style.yaml")
    options = CheckpointOptions(None, None, None, None, None, None, LoraAlpha.apply, None, None, offline=True)
    names = options.name_checkpoints(style)
    assert (names.loras, names.textual_inversions) == ((("a/b", 1.0),), (("a/ink", "<ink>"),))
    names = replace(options, lora=("c:2",), textual_inversion=("fox.pt", "f.pt:<f>")).name_checkpoints(style)
    assert (names.loras, names.textual_inversions) == ((("c", 2.0),), (("fox.pt", None), ("f.pt", "<f>")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("owner/name:-1", ("owner/name", -1.0)),
        ("C:/a.safetensors", ("C:/a.safetensors", 1.0)),
        ("C:/a.safetensors:2", ("C:/a.safetensors", 2.0)),
    ],
)
def test_a_lora_may_have_a_scale(text: str, expected: tuple[str, float]) -> None:
    assert read_scaled(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.pt", ("a.pt", None)),
        ("a.pt:<fox>", ("a.pt", "<fox>")),
        ("owner/name:sks", ("owner/name", "sks")),
        ("C:/a.pt", ("C:/a.pt", None)),
        (r"C:\a.pt", (r"C:\a.pt", None)),
        ("C:/a.pt:<fox>", ("C:/a.pt", "<fox>")),
        ("a.pt:", ("a.pt", "")),
    ],
)
def test_a_textual_inversion_may_have_a_token(text: str, expected: tuple[str, str | None]) -> None:
    assert read_token(text) == expected
