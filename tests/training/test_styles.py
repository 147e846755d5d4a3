"""Prompts: every wording is of one style, and of words that the tokenizer knows."""

from __future__ import annotations

from random import Random

import pytest
import torch

from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.training.networks import tokenize
from live2diff_trt.training.styles import STYLES, Style, draw_prompt


def test_no_wording_is_of_two_styles() -> None:
    phrases = [phrase for style in STYLES for phrase in style.phrases]
    assert len(set(phrases)) == len(phrases)
    assert {style.prompt for style in STYLES} >= {
        "a pencil sketch",
        "a watercolour painting",
        "a neon city",
        "a cartoon",
    }


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_prompt_holds_a_wording_of_its_style(style: Style) -> None:
    random = Random(0)
    prompts = {draw_prompt(style, random) for _ in range(100)}
    assert len(prompts) > 25
    assert all(any(phrase in prompt for phrase in style.phrases) for prompt in prompts)


def test_the_vocabulary_is_small() -> None:
    assert make_tokenizer("tiny").get_vocab_size() <= 4000


def test_prompts_are_padded_with_the_end_token() -> None:
    rows = tokenize(["neon", "a pencil sketch of a fox"])
    assert (rows.shape, rows.dtype) == ((2, 77), torch.int64)
    assert rows[:, -1].tolist() == [make_tokenizer("tiny").token_to_id("<|endoftext|>")] * 2
