from __future__ import annotations

from live2diff_trt.serve.recent_frames import RecentFrames


def test_rates_and_percentiles_of_the_last_seconds() -> None:
    clock = [0.0]
    frames = RecentFrames(lambda: clock[0])
    assert (frames.frames_per_second(), frames.percentile_ms(50)) == (0.0, None)
    for number in range(100):
        clock[0] = number / 20
        frames.note(number + 1.0)
    assert frames.frames_per_second() == 20
    assert (frames.percentile_ms(50), frames.percentile_ms(99), frames.percentile_ms(100)) == (50, 99, 100)
    clock[0] = 12.0
    assert frames.percentile_ms(0) == 41  # what is older than 10 s is forgotten
    clock[0] = 30.0
    assert (frames.frames_per_second(), frames.percentile_ms(99)) == (0.0, None)
