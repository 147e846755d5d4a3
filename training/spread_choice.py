"""Choices for a batch in which everything gets its share, as nearly as whole numbers allow."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import TypeVar

Choice = TypeVar("Choice")


def choose_for_batch(random: Random, choices: Sequence[Choice], weights: Sequence[float], count: int) -> list[Choice]:
    """Choose ``count`` times, equal choices beside each other; each as often as its share says, rounded up or down.

    Each place is as likely to be any choice as its weight says, over many batches. (Systematic sampling: Madow, "On the
    theory of systematic sampling, II", 1949.)
    """
    ends = [*accumulate(weights)]
    start = random.random()
    return [choices[min(bisect(ends, (start + index) / count * ends[-1]), len(choices) - 1)] for index in range(count)]
