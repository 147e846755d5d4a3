"""A copy shares all but what is named, and has no attribute that the first one lacks."""

from __future__ import annotations

import pytest

from live2diff_trt.runtime.copied import copied


class Pair:
    def __init__(self) -> None:
        self.first, self.second = [1], [2]


def test_what_is_named_is_another_and_the_rest_is_shared() -> None:
    pair = Pair()
    other = copied(pair, second=[3])
    assert (other.second, pair.second) == ([3], [2])
    assert other.first is pair.first
    assert type(other) is Pair


def test_an_attribute_that_is_not_there_is_refused() -> None:
    with pytest.raises(AttributeError, match="Pair has no third"):
        copied(Pair(), third=[3])
