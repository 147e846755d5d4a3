"""Tokens of textual inversions (Gal et al., arXiv 2208.01618): a tokenizer is taught one for each learned vector.

A token whose vectors are several stands in a prompt once; the others follow from its name, as diffusers has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count, takewhile


def name_vector(token: str, index: int) -> str:
    """Return what the tokenizer calls the vector ``index`` of a token; the first one has the token's own name."""
    return token if index == 0 else f"{token}_{index}"


def name_all_vectors(text: str, tokens: Iterable[str], known: Collection[str]) -> str:
    """Return the text with every token of several vectors followed by the names of the others.

    Args:
        text: a prompt.
        tokens: those it consists of, as the tokenizer spells them; the text may spell one otherwise, which then stays.
        known: all tokens that the tokenizer was taught.
    """
    for token in dict.fromkeys(tokens):
        if token in known:
            text = text.replace(token, " ".join(_find_vectors(token, known)))
    return text


def _find_vectors(token: str, known: Collection[str]) -> Iterable[str]:
    return takewhile(known.__contains__, (name_vector(token, index) for index in count()))
