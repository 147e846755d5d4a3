"""Tokenizers: CLIP's form, prompts of about one token a word, and no text that cannot be encoded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from live2diff_trt.export.tokenizer import CLIP_VOCABULARY, END_TOKEN, START_TOKEN, TextKind, make_tokenizer

TEXTS = (
    "a cat",
    "Ça déjà vu: 日本語 🎨",
    "it's 1987!!! (masterpiece:1.2), <lora>",
    "\x00\x7f\u200b\U0001d4b3 null",
    "",
)


@pytest.fixture(scope="module", params=["tiny", "clip-vit-l"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    kind: TextKind = request.param
    return make_tokenizer(kind)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    encoding = tokenizer.encode(text)

    assert encoding.tokens[0] == START_TOKEN
    assert encoding.tokens[-1] == END_TOKEN
    assert "".join(tokenizer.decode(encoding.ids).split()) == "".join(text.lower().split())


def test_saved_file_is_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    assert [loaded.encode(text).ids for text in TEXTS] == [tokenizer.encode(text).ids for text in TEXTS]
    assert loaded.get_vocab_size() == tokenizer.get_vocab_size()
    assert loaded.padding is None
    assert loaded.truncation is None


def test_special_tokens_are_the_last_two(tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    assert [tokenizer.token_to_id(token) for token in (START_TOKEN, END_TOKEN)] == [size - 2, size - 1]
    assert max(tokenizer.encode(text).ids[-1] for text in TEXTS) == size - 1


def test_case_spaces_and_composition_do_not_matter(tokenizer: Tokenizer) -> None:
    # The second é is an e and a combining accent.
    ids = [tokenizer.encode(text).ids for text in ("a café", "  A \n\t CAFÉ ", "a cafe\u0301")]
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(
    "prompt",
    [
        "masterpiece, best quality, a man walking in the city at night, cyberpunk style, neon lights",
        "A watercolor painting of a red fox in the snow",
    ],
)
def test_tiny_needs_one_token_a_word(prompt: str) -> None:
    pieces = prompt.replace(",", " ,").split()
    tokens = make_tokenizer("tiny").encode(prompt).tokens
    assert len(tokens) <= len(pieces) + 2 + 1


def run_python(code: str, folder: Path) -> str:
    """Run code in a new process with this one's packages; ``folder`` because Python looks where it starts, too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_tiny_is_the_same_every_time(tmp_path: Path) -> None:
    code = "from live2diff_trt.export.tokenizer import make_tokenizer as make; import sys"
    assert run_python(f"{code}; sys.stdout.write(make('tiny').to_str())", tmp_path) == make_tokenizer("tiny").to_str()


def test_no_torch_is_needed(tmp_path: Path) -> None:
    code = "import live2diff_trt.export.tokenizer, sys"
    assert run_python(f"{code}; sys.stdout.write(str('torch' in sys.modules))", tmp_path) == "False"


def test_clip_ids_are_clips() -> None:
    tokenizer = make_tokenizer("clip-vit-l")
    assert tokenizer.get_vocab_size() == CLIP_VOCABULARY
    # In CLIP's vocabulary "a" is 320 at a word's end, and "!" is 0 inside one.
    assert tokenizer.encode("a").ids == [49406, 320, 49407]
    assert tokenizer.encode("!!").ids == [49406, 0, 256, 49407]
