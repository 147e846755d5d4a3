"""Textual inversions: a prompt becomes what diffusers makes of it, ids and embeddings, without diffusers' loader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle, FileRecord, Manifest
from live2diff_trt.export.checkpoint_names import CheckpointNames, locate_checkpoints
from live2diff_trt.export.checkpoints import CheckpointWeights
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.text import TextEncoderGraph
from live2diff_trt.export.textual_inversion import read_textual_inversion, teach_text_encoder, teach_tokenizer
from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.runtime.prompt import PromptTokenizer
from tests.export.made_up_models import make_spatial_unet, make_text_encoder, write_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = 32
PROMPTS = (
    "a photo of a <fox> in the snow",
    "<fox>, <ink> style, <fox>",
    "a <FOX> made of <Ink>",
    "<ink><fox>Midjourney",
    "midjourney style, in <fox>_1 and <fox>_2",
    "sks! a fox with no token",
    "<fox> " * 30,
    "",
)
PIECES = ("<fox>", "<FOX>", "<ink>", "Midjourney", "sks", "_1", "_2", "<", "!", "a fox", "É", " ", ", ")


def save_pickled(content: object, path: Path) -> None:
    torch.save(content, path)


def save_safetensors(content: dict[str, Tensor], path: Path) -> None:
    save_file(content, path)


def nest(name: str, vectors: Tensor) -> dict[str, Any]:
    """Return what the AUTOMATIC1111 web UI saves as .pt."""
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": name,
        "step": 500,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5",
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's text parts, and textual inversions of every layout: 3, 2, 1 and 1 vectors."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    make_text_encoder().save_pretrained(folder / "base" / "text_encoder")
    make_spatial_unet().save_pretrained(folder / "base" / "unet")
    write_tokenizer(folder / "base" / "tokenizer")
    save_safetensors({"<fox>": torch.randn(3, CHANNELS)}, folder / "learned_embeds.safetensors")
    save_pickled(nest("<ink>", torch.randn(2, CHANNELS).half()), folder / "ink.pt")
    save_pickled({"Midjourney": torch.nn.Parameter(torch.randn(CHANNELS))}, folder / "learned_embeds.bin")
    save_safetensors({"emb_params": torch.randn(1, CHANNELS)}, folder / "sks.safetensors")
    for file in ("live2diff.ckpt", "depth.json"):
        (folder / file).touch()
    return folder


INVERSIONS = (
    ("learned_embeds.safetensors", None, ["<fox>", "<fox>_1", "<fox>_2"]),
    ("ink.pt", None, ["<ink>", "<ink>_1"]),
    ("learned_embeds.bin", None, ["Midjourney"]),
    ("sks.safetensors", "sks", ["sks"]),
)


@pytest.fixture(scope="module")
def weights(models: Path) -> CheckpointWeights:
    names = CheckpointNames(
        str(models / "base"), str(models / "live2diff.ckpt"), depth=str(models / "depth.json"), offline=True
    )
    inversions = tuple((str(models / file), token) for file, token, _ in INVERSIONS)
    return locate_checkpoints(replace(names, textual_inversions=inversions), TINY)


@pytest.fixture(scope="module")
def pipeline(models: Path) -> StableDiffusionPipeline:
    """diffusers' own pipeline, which loaded the same files."""
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=CLIPTextModel.from_pretrained(models / "base" / "text_encoder", local_files_only=True),
        tokenizer=CLIPTokenizer.from_pretrained(
            models / "base" / "tokenizer", local_files_only=True, model_max_length=77
        ),
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for file, token, _ in INVERSIONS:
        pipe.load_textual_inversion(str(models), weight_name=file, token=token, local_files_only=True)
    return pipe


@pytest.fixture(scope="module")
def prompt_tokenizer(weights: CheckpointWeights, tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    """What the run time makes of the tokenizer of a bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    weights.tokenizer(TINY).save(str(folder / TOKENIZER_FILE))
    manifest = Manifest(TINY.spec(), {}, {}, {}, {TOKENIZER_FILE: FileRecord(0, "")})
    return PromptTokenizer(Bundle(folder, manifest, "digest"))


def assert_same_ids(ours: PromptTokenizer, pipeline: StableDiffusionPipeline, prompt: str) -> None:
    named = pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)
    expected = pipeline.tokenizer(named, padding="max_length", max_length=77, truncation=True).input_ids
    assert ours.tokenize(prompt).tolist() == expected


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_has_the_ids_that_diffusers_gives_it(
    prompt_tokenizer: PromptTokenizer, pipeline: StableDiffusionPipeline, prompt: str
) -> None:
    assert_same_ids(prompt_tokenizer, pipeline, prompt)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_prompt_has_the_ids_that_diffusers_gives_it(
    prompt_tokenizer: PromptTokenizer, pipeline: StableDiffusionPipeline, prompt: str
) -> None:
    assert_same_ids(prompt_tokenizer, pipeline, prompt)


def test_a_prompt_has_the_embeddings_that_diffusers_gives_it(
    weights: CheckpointWeights, prompt_tokenizer: PromptTokenizer, pipeline: StableDiffusionPipeline
) -> None:
    graph = TextEncoderGraph(weights.text_encoder(TINY, torch.float32), clip_skip=0)
    ids = torch.from_numpy(np.stack([prompt_tokenizer.tokenize(prompt) for prompt in PROMPTS]))
    (found,) = graph((ids,))
    expected, _ = pipeline.encode_prompt(list(PROMPTS), "cpu", 1, False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_tables_are_diffusers_own(weights: CheckpointWeights, pipeline: StableDiffusionPipeline) -> None:
    found = weights.text_encoder(TINY, torch.float32).get_input_embeddings().weight
    expected = pipeline.text_encoder.get_input_embeddings().weight[: len(found)]
    assert len(found) == len(pipeline.tokenizer) == make_tokenizer("tiny").get_vocab_size() + 7
    assert torch.equal(found, expected)


def test_the_file_its_hash_and_its_tokens_are_recorded(weights: CheckpointWeights, models: Path) -> None:
    records = [one for one in weights.describe("text_encoder")["files"] if one["role"] == "textual_inversion"]
    assert [(one["file"], one["tokens"]) for one in records] == [(file, tokens) for file, _, tokens in INVERSIONS]
    assert records[1]["source"] == str(models / "ink.pt")
    assert records[1]["sha256"] == hashlib.sha256((models / "ink.pt").read_bytes()).hexdigest()
    assert not any(one["role"] == "textual_inversion" for one in weights.describe("unet")["files"])


@pytest.mark.parametrize(
    ("save", "content", "token", "vectors"),
    [
        (save_pickled, {"<a>": torch.ones(4)}, "<a>", 1),
        (save_pickled, nest("<a>", torch.ones(2, 4)), "<a>", 2),
        (save_pickled, {"emb_params": torch.ones(2, 4)}, None, 2),
        (save_safetensors, {"<a>": torch.ones(1, 4)}, "<a>", 1),
        (save_safetensors, {"emb_params": torch.ones(3, 4)}, None, 3),
    ],
)
def test_every_layout_is_read(
    tmp_path: Path, save: Callable[[Any, Path], None], content: Any, token: str | None, vectors: int
) -> None:
    path = tmp_path / ("a.pt" if save is save_pickled else "a.safetensors")
    save(content, path)
    named = read_textual_inversion(path, "<b>")
    assert (named.token, named.vectors.shape) == ("<b>", (vectors, 4))
    if token is None:
        with pytest.raises(CheckpointError, match=r"does not say its token.*--textual-inversion FILE:TOKEN"):
            read_textual_inversion(path)
    else:
        assert read_textual_inversion(path).token == token


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"clip_l": torch.ones(1, 4), "clip_g": torch.ones(1, 8)}, "it holds clip_l, clip_g"),
        ({}, "it holds nothing"),
        ({"string_to_param": {}, "name": "a"}, "it holds string_to_param, name"),
        ({"string_to_param": 3}, "it holds string_to_param"),
        ({"<a>": torch.ones(1, 2, 3)}, r"are \[1, 2, 3\], not \[vectors, channels\]"),
        ({"<a>": torch.ones(0, 3)}, r"are \[0, 3\], not"),
        ({"<a>": 3.5}, "are float, not"),
        ({7: torch.ones(4)}, "does not say its token"),
        ([torch.ones(4)], "holds a list"),
    ],
)
def test_what_is_no_textual_inversion_is_refused(tmp_path: Path, content: object, message: str) -> None:
    save_pickled(content, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=message):
        read_textual_inversion(tmp_path / "a.bin")


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("file", ["a.bin", "a.pt"])
def test_code_in_a_textual_inversion_is_refused_and_not_run(tmp_path: Path, file: str) -> None:
    save_pickled({"<a>": torch.ones(4), "name": Trap(tmp_path / "ran")}, tmp_path / file)
    with pytest.raises(CheckpointError, match="holds code"):
        read_textual_inversion(tmp_path / file)
    assert not (tmp_path / "ran").exists()


def teach(tokenizer: Tokenizer, folder: Path, token: str, vectors: int, channels: int = CHANNELS) -> None:
    save_pickled({token: torch.ones(vectors, channels)}, folder / "a.bin")
    inversion = read_textual_inversion(folder / "a.bin")
    teach_tokenizer(tokenizer, inversion)
    teach_text_encoder(make_text_encoder(), tokenizer, inversion)


@pytest.mark.parametrize(
    ("token", "vectors", "message"),
    [
        ("!", 1, r"a\.bin can't be called !: the tokenizer knows ! already"),
        ("<fox>", 1, "the tokenizer knows <fox>, <fox>_1 already"),
        ("<fo", 2, "the tokenizer knows <fo_1 already"),
        ("<fo", 1, "the tokenizer knows <fo_1 already"),
        ("<FOX>", 1, "the tokenizer knows <FOX>, <FOX>_1 already"),
        ("Ink", 2, "reads the token 'Ink' of .* as 'ink'.*in lower case"),
    ],
)
def test_a_token_that_would_mean_something_else_is_refused(
    tmp_path: Path, token: str, vectors: int, message: str
) -> None:
    tokenizer = make_tokenizer("tiny")
    teach(tokenizer, tmp_path, "<fox>", 2)
    tokenizer.add_tokens(["<fo_1"])
    with pytest.raises(CheckpointError, match=message):
        teach(tokenizer, tmp_path, token, vectors)


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.bin has 1024 channels, the text encoder 32"):
        teach(make_tokenizer("tiny"), tmp_path, "<fox>", 1, channels=1024)
