"""A prompt becomes as many token ids as the text encoder takes, and nothing is cut in silence."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle, FileRecord, Manifest
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.tokenizer import END_TOKEN, START_TOKEN, make_tokenizer
from live2diff_trt.runtime.prompt import PromptTokenizer

TOKENS = 77


def open_tokenizer(
    folder: Path, *, tokens: int = TOKENS, listed: bool = True, template: str | None = None
) -> PromptTokenizer:
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
    weights = {} if template is None else {"text_encoder": {"prompt_template": template}}
    return PromptTokenizer(Bundle(folder, Manifest(spec, {}, weights, {}, files), "digest"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer("tiny")


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    tokenizer.save(str(tmp_path / TOKENIZER_FILE))
    return tmp_path


@pytest.fixture
def prompt_tokenizer(folder: Path) -> PromptTokenizer:
    return open_tokenizer(folder)


def look_up(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_short_prompt_is_padded_with_the_end_token(prompt_tokenizer: PromptTokenizer, tokenizer: Tokenizer) -> None:
    ids = prompt_tokenizer.tokenize("a red cat")
    start, end = look_up(tokenizer, START_TOKEN, END_TOKEN)
    assert ids.dtype == np.int32
    assert ids.shape == (TOKENS,)
    assert ids.tolist() == [start, *look_up(tokenizer, "a</w>", "red</w>", "cat</w>"), *[end] * (TOKENS - 4)]


def test_an_empty_prompt_is_a_start_and_ends(
    prompt_tokenizer: PromptTokenizer, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    start, end = look_up(tokenizer, START_TOKEN, END_TOKEN)
    for prompt in ("", "   "):
        assert prompt_tokenizer.tokenize(prompt).tolist() == [start, *[end] * (TOKENS - 1)]
    assert not warnings(caplog)


def test_seventy_five_tokens_fit(
    prompt_tokenizer: PromptTokenizer, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = prompt_tokenizer.tokenize("cat " * 75)
    start, cat, end = look_up(tokenizer, START_TOKEN, "cat</w>", END_TOKEN)
    assert ids.tolist() == [start, *[cat] * 75, end]
    assert not warnings(caplog)


def test_the_seventy_sixth_is_cut_and_named(
    prompt_tokenizer: PromptTokenizer, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = prompt_tokenizer.tokenize("cat " * 75 + "red dragon")
    start, cat, end = look_up(tokenizer, START_TOKEN, "cat</w>", END_TOKEN)
    assert ids.tolist() == [start, *[cat] * 75, end]
    (message,) = warnings(caplog)
    assert "77 tokens" in message
    assert "75 fit" in message
    assert message.endswith("'red dragon'")


@pytest.mark.parametrize("gap", [" ", "   ", "\n\t "])
def test_what_was_cut_is_named_as_it_was_written(folder: Path, gap: str, caplog: pytest.LogCaptureFixture) -> None:
    prompt_tokenizer = open_tokenizer(folder, tokens=4)
    prompt_tokenizer.tokenize(f"Red{gap}CAT{gap}Blue{gap}Dog")
    (message,) = warnings(caplog)
    assert message.endswith(repr(f"Blue{gap}Dog"))


def test_another_length_pads_and_cuts_at_it(
    folder: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    prompt_tokenizer = open_tokenizer(folder, tokens=4)
    start, red, cat, end = look_up(tokenizer, START_TOKEN, "red</w>", "cat</w>", END_TOKEN)
    assert prompt_tokenizer.tokenize("cat").tolist() == [start, cat, end, end]
    assert prompt_tokenizer.tokenize("red cat").tolist() == [start, red, cat, end]
    assert not warnings(caplog)
    assert prompt_tokenizer.tokenize("red cat cat").tolist() == [start, red, cat, end]
    assert len(warnings(caplog)) == 1


def test_a_negative_prompt_is_told_as_it_is(folder: Path) -> None:
    styled, plain = open_tokenizer(folder, template="a {} by night"), open_tokenizer(folder)
    np.testing.assert_array_equal(styled.tokenize_negative("a fox"), plain.tokenize("a fox"))
    assert (styled.tokenize("a fox") != plain.tokenize("a fox")).any()


def test_a_prompt_is_put_into_the_template_of_the_style(
    folder: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    prompt_tokenizer = open_tokenizer(folder, tokens=5, template="red {} blue")
    start, red, cat, blue, end = look_up(tokenizer, START_TOKEN, "red</w>", "cat</w>", "blue</w>", END_TOKEN)
    assert prompt_tokenizer.tokenize("cat").tolist() == [start, red, cat, blue, end]
    assert not warnings(caplog)
    assert prompt_tokenizer.tokenize("cat cat").tolist() == [start, red, cat, cat, end]
    (message,) = warnings(caplog)
    assert message.endswith("'blue'")


@pytest.fixture
def learned(folder: Path, tokenizer: Tokenizer) -> PromptTokenizer:
    """A tokenizer that was taught <fox> with two vectors and <ink> with one."""
    taught = Tokenizer.from_str(tokenizer.to_str())
    taught.add_tokens(["<fox>", "<fox>_1", "<ink>"])
    taught.save(str(folder / TOKENIZER_FILE))
    return open_tokenizer(folder, tokens=7, template="{}, <ink>")


def test_a_learned_token_has_all_of_its_vectors(
    learned: PromptTokenizer, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    first = tokenizer.get_vocab_size()
    start, a, comma, end = look_up(tokenizer, START_TOKEN, "a</w>", ",</w>", END_TOKEN)
    assert learned.tokenize("a <fox>").tolist() == [start, a, first, first + 1, comma, first + 2, end]
    assert learned.tokenize("A").tolist() == [start, a, comma, first + 2, end, end, end]
    assert not warnings(caplog)


def test_a_learned_token_in_other_letters_is_told(
    learned: PromptTokenizer, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    assert learned.tokenize("<FOX> <INK>")[1] == tokenizer.get_vocab_size()
    (message,) = warnings(caplog)
    assert "<fox>" in message
    assert "only the first of its vectors" in message


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"model": 3}'])
def test_a_tokenizer_that_is_none_is_refused_by_name(folder: Path, text: str) -> None:
    (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="is not a tokenizer") as caught:
        open_tokenizer(folder)
    assert str(folder / TOKENIZER_FILE) in caught.value.problem


def test_a_bundle_without_a_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match=f"holds no {TOKENIZER_FILE}"):
        open_tokenizer(folder, listed=False)
