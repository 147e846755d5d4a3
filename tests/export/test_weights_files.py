"""Weights as the hub has them, in shards and variants: what is read is what diffusers and transformers read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, DPTForDepthEstimation

from live2diff_trt.export.autoencoder_files import autoencoder_files, load_autoencoder
from live2diff_trt.export.base_model import DiffusersFolder
from live2diff_trt.export.depth_files import depth_files, load_depth
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.weights_files import DIFFUSERS, TRANSFORMERS, Stems, choose_weights, open_weights
from tests.export.made_up_models import make_autoencoder, make_depth, make_spatial_unet, make_text_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = {"unet": "1MB", "vae": "50KB", "text_encoder": "50KB", "depth": "50KB"}
CLASSES = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "depth": DPTForDepthEstimation,
}
WHOLE = "10GB"


@dataclass(frozen=True)
class Saver:
    """Saves one network of every part, again and again."""

    models: Mapping[str, Any]

    def save(self, folder: Path, part: str, *, variant: str | None = None, shards: bool = False, **form: Any) -> Path:
        """Save a part as a library does, rounded for a variant; return the part's folder."""
        model = self.models[part]
        rounded = model.half() if variant else model.float()
        size = PARTS[part] if shards else WHOLE
        rounded.save_pretrained(folder / part, variant=variant, max_shard_size=size, **form)
        return folder / part


@pytest.fixture
def saver() -> Saver:
    torch.manual_seed(0)
    return Saver(
        {
            "unet": make_spatial_unet(),
            "vae": make_autoencoder(),
            "text_encoder": make_text_encoder(),
            "depth": make_depth(),
        }
    )


def read(folder: Path, part: str) -> dict[str, Tensor]:
    """Read a part as the export does."""
    base = DiffusersFolder(folder)
    if part == "unet":
        return base.unet_weights(TINY)
    if part == "text_encoder":
        return base.text_weights()
    return dict((load_depth(folder / part) if part == "depth" else base.autoencoder()).state_dict())


def name_files(folder: Path, part: str) -> list[str]:
    """Return the names of the files that are recorded for a part."""
    if part == "depth":
        files = depth_files(folder / part)
    elif part == "vae":
        files = autoencoder_files(folder / part)
    else:
        files = DiffusersFolder(folder).files("unet" if part == "unet" else "text_encoder")
    return [file.name for file in files]


def assert_read_as_by_their_own(folder: Path, part: str, variant: str | None) -> None:
    expected = CLASSES[part].from_pretrained(folder / part, variant=variant, torch_dtype=torch.float32).state_dict()
    found = {key.removeprefix("text_model."): tensor.float() for key, tensor in read(folder, part).items()}
    assert set(found) == {key.removeprefix("text_model.") for key in expected}
    for key, tensor in expected.items():
        assert torch.equal(found[key.removeprefix("text_model.")], tensor), key


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("variant", "shards"), [(None, True), ("fp16", False), ("fp16", True)])
def test_shards_and_variants_are_read_as_their_own_loaders_do(
    saver: Saver, tmp_path: Path, part: str, variant: str | None, shards: bool
) -> None:
    saver.save(tmp_path, part, variant=variant, shards=shards)
    assert_read_as_by_their_own(tmp_path, part, variant)
    present = {file.name for file in (tmp_path / part).iterdir() if file.suffix in (".json", ".safetensors")}
    assert set(name_files(tmp_path, part)) == present
    assert len(present) == 2 if not shards else len(present) > 3


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("shards", [False, True])
def test_full_precision_is_taken_where_both_variants_are(saver: Saver, tmp_path: Path, part: str, shards: bool) -> None:
    for variant in (None, "fp16"):
        saver.save(tmp_path, part, variant=variant, shards=shards)
    assert_read_as_by_their_own(tmp_path, part, None)
    assert not any("fp16" in name for name in name_files(tmp_path, part))


def test_full_precision_in_bin_comes_before_a_variant(saver: Saver, tmp_path: Path) -> None:
    saver.save(tmp_path, "vae", safe_serialization=False)
    saver.save(tmp_path, "vae", variant="fp16")
    assert_read_as_by_their_own(tmp_path, "vae", None)
    assert name_files(tmp_path, "vae") == ["config.json", "diffusion_pytorch_model.bin"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_bin_is_read_where_nothing_else_is(saver: Saver, tmp_path: Path, part: str, variant: str | None) -> None:
    """Written by hand: transformers reads the format, and writes it no more."""
    folder = saver.save(tmp_path, part, variant=variant)
    (saved,) = folder.glob("*.safetensors")
    stem = "diffusion_pytorch_model" if part in ("unet", "vae") else "pytorch_model"
    name = f"{stem}.fp16.bin" if variant else f"{stem}.bin"
    torch.save(load_file(saved), folder / name)
    saved.unlink()
    assert_read_as_by_their_own(tmp_path, part, variant)
    assert name_files(tmp_path, part) == ["config.json", name]


SHARD = "{}-{:05d}-of-{:05d}.{}".format
MODEL_SHARDS = [SHARD("model", index, 2, "safetensors") for index in (1, 2)]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("present", "stems", "expected"),
    [
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], TRANSFORMERS, ["model.safetensors"]),
        (["pytorch_model.bin", "model.fp16.safetensors"], TRANSFORMERS, ["pytorch_model.bin"]),
        (["model.fp16.safetensors", "pytorch_model.fp16.bin"], TRANSFORMERS, ["model.fp16.safetensors"]),
        (["pytorch_model.fp16.bin", "model.safetensors.md"], TRANSFORMERS, ["pytorch_model.fp16.bin"]),
        (["model.fp16.safetensors", *MODEL_SHARDS[::-1], INDEX], TRANSFORMERS, [INDEX, *MODEL_SHARDS]),
        (
            ["diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.bin"],
            DIFFUSERS,
            ["diffusion_pytorch_model.bin"],
        ),
    ],
)
def test_what_is_taken_follows_from_the_names(present: list[str], stems: Stems, expected: list[str]) -> None:
    assert list(choose_weights(present, stems, "here").all) == expected


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([], r"here has neither model\.safetensors nor pytorch_model\.bin"),
        (["diffusion_pytorch_model.safetensors"], r"neither model\.safetensors"),
        (MODEL_SHARDS, rf"{MODEL_SHARDS[0]}, {MODEL_SHARDS[1]} without their {INDEX}"),
        (["model.safetensors", INDEX, *MODEL_SHARDS], rf"has model\.safetensors and shards of it \({INDEX}, "),
        (["model.safetensors", MODEL_SHARDS[1]], rf"shards of it \({MODEL_SHARDS[1]}\)"),
    ],
)
def test_what_is_not_clear_is_refused(present: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        choose_weights(present, TRANSFORMERS, "here")


@pytest.mark.parametrize("part", PARTS)
def test_shards_that_are_missing_or_too_many_are_all_named(saver: Saver, tmp_path: Path, part: str) -> None:
    folder = saver.save(tmp_path, part, shards=True)
    first, second, *_ = sorted(file.name for file in folder.glob("*-of-*"))
    extra = re.sub(r"\d{5}-of", "00077-of", first)
    (folder / second).rename(folder / extra)
    (folder / first).unlink()
    with pytest.raises(CheckpointError, match="3 shards") as caught:
        read(tmp_path, part)
    lines = [line.strip() for line in caught.value.problem.splitlines()[1:]]
    assert lines == [f"missing {first}", f"missing {second}", f"not in the index {extra}"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none_is_refused(saver: Saver, tmp_path: Path, text: str) -> None:
    folder = saver.save(tmp_path, "text_encoder", shards=True)
    (folder / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{INDEX} can't be read as an index"):
        open_weights(folder, TRANSFORMERS)


def test_an_index_leads_out_of_no_folder(saver: Saver, tmp_path: Path) -> None:
    folder = saver.save(tmp_path, "text_encoder", shards=True)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["more"] = "../more.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    (tmp_path / "more.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"missing \.\./more\.safetensors"):
        open_weights(folder, TRANSFORMERS)


def test_a_key_in_two_shards_is_refused(saver: Saver, tmp_path: Path) -> None:
    folder = saver.save(tmp_path, "text_encoder", shards=True)
    first, second, *_ = sorted(folder.glob("*-of-*"))
    key, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), key: tensor}, second)
    with pytest.raises(CheckpointError, match=rf"{second.name} holds what another shard holds too: {re.escape(key)}"):
        open_weights(folder, TRANSFORMERS).read()


def test_an_autoencoder_of_its_own_may_lie_in_shards(saver: Saver, tmp_path: Path) -> None:
    folder = saver.save(tmp_path, "vae", variant="fp16", shards=True)
    found = load_autoencoder(folder).state_dict()
    expected = saver.models["vae"].state_dict()
    assert all(torch.equal(found[key], tensor.float()) for key, tensor in expected.items())
