"""Learned tokens: one name in a prompt stands for all vectors."""

from __future__ import annotations

import pytest

from live2diff_trt.bundle.learned_tokens import name_all_vectors, name_vector

KNOWN = ["<fox>", "<fox>_1", "<fox>_2", "ink", "<end>"]


def test_the_first_vector_has_the_tokens_own_name() -> None:
    assert [name_vector("<fox>", index) for index in range(3)] == KNOWN[:3]


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("a <fox>, <fox>", ["a", "<fox>", ",", "<fox>"], "a <fox> <fox>_1 <fox>_2, <fox> <fox>_1 <fox>_2"),
        ("ink", ["ink", "<end>"], "ink"),
        ("A <FOX>", ["a", "<fox>"], "A <FOX>"),
        ("<fox>", ["<", "fox", ">"], "<fox>"),
        ("", ["<end>"], ""),
    ],
)
def test_a_token_is_followed_by_its_other_vectors(text: str, tokens: list[str], expected: str) -> None:
    assert name_all_vectors(text, tokens, KNOWN) == expected
