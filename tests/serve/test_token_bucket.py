from __future__ import annotations

from live2diff_trt.serve.token_bucket import TokenBucket


def test_a_burst_and_then_so_many_a_second() -> None:
    clock = [0.0]
    bucket = TokenBucket(2, 3, lambda: clock[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock[0] = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock[0] = 100
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
