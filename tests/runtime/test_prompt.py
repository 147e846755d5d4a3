"""A prompt becomes as many token ids as the text encoder takes, and nothing is cut in silence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle, FileRecord, Manifest
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs
from live2diff_trt.export.tokenizer import END_TOKEN, START_TOKEN, make_tokenizer
from live2diff_trt.runtime.prompt import PromptEncoder

Ids = NDArray[np.int32]
TOKENS = 77


class StubEncoder:
    """Returns every id three times over as its embedding, and writes down what it was given."""

    def __init__(self) -> None:
        self.given: list[dict[str, Ids]] = []

    def open(self, name: str) -> StubEncoder:
        assert name == "text_encoder"
        return self

    def run(self, inputs: dict[str, Ids]) -> dict[str, NDArray[np.float32]]:
        self.given.append(inputs)
        return {"text_embeddings": np.repeat(inputs["token_ids"][..., None], 3, axis=-1).astype(np.float32)}


def open_encoder(folder: Path, *, tokens: int = TOKENS, listed: bool = True) -> tuple[PromptEncoder, StubEncoder]:
    spec = StreamSpec(
        width=64,
        height=64,
        step_list=(30,),
        dtype="float32",
        heads=1,
        kv_caches=(),
        time_projections=(),
        prompt_kvs=(),
        prompt_tokens=tokens,
        text_channels=3,
        depth_channels=4,
        depth_size=0,
    )
    files = {TOKENIZER_FILE: FileRecord(0, "")} if listed else {}
    stub = StubEncoder()
    bundle = Bundle(folder, Manifest(spec, {}, {}, {}, files), "digest")
    return PromptEncoder(bundle, cast(OnnxGraphs, stub)), stub


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer("tiny")


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    tokenizer.save(str(tmp_path / TOKENIZER_FILE))
    return tmp_path


@pytest.fixture
def encoder(folder: Path) -> PromptEncoder:
    return open_encoder(folder)[0]


def look_up(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_short_prompt_is_padded_with_the_end_token(encoder: PromptEncoder, tokenizer: Tokenizer) -> None:
    ids = encoder.tokenize("a red cat")
    start, end = look_up(tokenizer, START_TOKEN, END_TOKEN)
    assert ids.dtype == np.int32
    assert ids.shape == (TOKENS,)
    assert ids.tolist() == [start, *look_up(tokenizer, "a</w>", "red</w>", "cat</w>"), *[end] * (TOKENS - 4)]


def test_an_empty_prompt_is_a_start_and_ends(
    encoder: PromptEncoder, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    start, end = look_up(tokenizer, START_TOKEN, END_TOKEN)
    for prompt in ("", "   "):
        assert encoder.tokenize(prompt).tolist() == [start, *[end] * (TOKENS - 1)]
    assert not warnings(caplog)


def test_seventy_five_tokens_fit(
    encoder: PromptEncoder, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = encoder.tokenize("cat " * 75)
    start, cat, end = look_up(tokenizer, START_TOKEN, "cat</w>", END_TOKEN)
    assert ids.tolist() == [start, *[cat] * 75, end]
    assert not warnings(caplog)


def test_the_seventy_sixth_is_cut_and_named(
    encoder: PromptEncoder, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = encoder.tokenize("cat " * 75 + "red dragon")
    start, cat, end = look_up(tokenizer, START_TOKEN, "cat</w>", END_TOKEN)
    assert ids.tolist() == [start, *[cat] * 75, end]
    (message,) = warnings(caplog)
    assert "77 tokens" in message
    assert "75 fit" in message
    assert message.endswith("'red dragon'")


@pytest.mark.parametrize("gap", [" ", "   ", "\n\t "])
def test_what_was_cut_is_named_as_it_was_written(folder: Path, gap: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder, _ = open_encoder(folder, tokens=4)
    encoder.tokenize(f"Red{gap}CAT{gap}Blue{gap}Dog")
    (message,) = warnings(caplog)
    assert message.endswith(repr(f"Blue{gap}Dog"))


def test_another_length_pads_and_cuts_at_it(
    folder: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, _ = open_encoder(folder, tokens=4)
    start, red, cat, end = look_up(tokenizer, START_TOKEN, "red</w>", "cat</w>", END_TOKEN)
    assert encoder.tokenize("cat").tolist() == [start, cat, end, end]
    assert encoder.tokenize("red cat").tolist() == [start, red, cat, end]
    assert not warnings(caplog)
    assert encoder.tokenize("red cat cat").tolist() == [start, red, cat, end]
    assert len(warnings(caplog)) == 1


def test_encoding_runs_the_text_encoder_on_one_row_of_ids(folder: Path) -> None:
    encoder, stub = open_encoder(folder)
    embeddings = encoder.encode("a red cat")
    ids = encoder.tokenize("a red cat")
    assert embeddings.shape == (1, TOKENS, 3)
    np.testing.assert_array_equal(embeddings[0, :, 0], ids)
    (given,) = stub.given
    assert list(given) == ["token_ids"]
    assert given["token_ids"].dtype == np.int32
    assert given["token_ids"].shape == (1, TOKENS)


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"model": 3}'])
def test_a_tokenizer_that_is_none_is_refused_by_name(folder: Path, text: str) -> None:
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="is not a tokenizer") as caught:
        open_encoder(folder)
    assert str(folder / TOKENIZER_FILE) in caught.value.problem


def test_a_bundle_without_a_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match=f"holds no {TOKENIZER_FILE}"):
        open_encoder(folder, listed=False)
