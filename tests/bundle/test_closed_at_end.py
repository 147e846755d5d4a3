"""A block closes what it was entered with, however it ends."""

from __future__ import annotations

import pytest

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd


class Counting(ClosedAtEnd):
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_block_closes_at_its_end() -> None:
    with Counting() as counting:
        assert counting.closed == 0
    assert counting.closed == 1


def test_an_error_is_not_swallowed() -> None:
    counting = Counting()
    with pytest.raises(ValueError, match="it broke"), counting:
        raise ValueError("it broke")
    assert counting.closed == 1
