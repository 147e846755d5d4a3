from __future__ import annotations

import threading
import time

import pytest

from live2diff_trt.runtime.turns import Turns


def test_turns_are_taken_one_at_a_time_and_in_order() -> None:
    turns = Turns()
    log: list[str] = []

    def take(name: str, times: int) -> None:
        for _ in range(times):
            with turns.take():
                log.append(name)
                time.sleep(0.005)  # meanwhile the other one asks
                assert log[-1] == name

    threads = [threading.Thread(target=take, args=(name, 6)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert "".join(log).strip("ab") == ""
    assert "aaa" not in "".join(log)[2:-2]  # who comes back is behind who waits
    assert log.count("a") == log.count("b") == 6


def test_an_error_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="x"), turns.take():
        raise ValueError("x")
    with turns.take():
        pass
