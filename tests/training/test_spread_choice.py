"""Choices for a batch: everything gets its share."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from live2diff_trt.training.spread_choice import choose_for_batch


def test_in_a_batch_each_share_is_rounded_up_or_down() -> None:
    random = Random(0)
    for _ in range(50):
        chosen = choose_for_batch(random, "abc", [0.5, 0.3, 0.2], 12)
        assert chosen == sorted(chosen)
        counts = Counter(chosen)
        assert counts["a"] == 6
        assert counts["b"] in {3, 4}
        assert counts["c"] in {2, 3}


def test_over_many_batches_of_one_each_share_is_kept() -> None:
    random = Random(1)
    counts = Counter(choose_for_batch(random, "ab", [3, 1], 1)[0] for _ in range(2000))
    assert counts["a"] / 2000 == pytest.approx(0.75, abs=0.03)
