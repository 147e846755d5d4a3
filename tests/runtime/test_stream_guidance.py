"""Guidance on a real bundle: what its scale must and must not change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from live2diff_trt import Guidance, Stream
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.frame import FinishedFrame
from tests.runtime.emulated_bench import Bench, Use, pictures, run

FRAMES = pictures(14)


def same(found: Sequence[FinishedFrame], expected: Sequence[FinishedFrame]) -> list[bool]:
    return [np.array_equal(one.image, other.image) for one, other in zip(found, expected, strict=True)]


def turn_to(scale: float, at: int) -> Use:
    """Return a use in which the scale is another from a frame on."""

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = [frame for picture in FRAMES[:at] for frame in stream(picture)]
        stream.set_guidance_scale(scale)
        return [*finished, *stream.run(FRAMES[at:])]

    return use


def test_without_guidance_a_scale_has_no_effect(bench: Bench) -> None:
    assert all(same(bench.host(turn_to(7.5, 11)), bench.host(run(FRAMES))))


def test_a_scale_of_one_is_no_guidance(bench: Bench) -> None:
    for one, other in zip(bench.host(run(FRAMES), guidance=Guidance("self", 1)), bench.host(run(FRAMES)), strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_scale_acts_on_the_next_tick(bench: Bench, steps: int) -> None:
    """Frames on their way are guided by it as well, from the tick of the next frame on."""
    guidance = Guidance("self", 1.1)
    unchanged = bench.host(run(FRAMES), steps, guidance=guidance)
    changed = bench.host(turn_to(1.6, 11), steps, guidance=guidance)
    assert same(changed, unchanged) == [True] * (12 - steps) + [False] * (2 + steps)


def test_a_scale_that_is_set_back_changes_nothing(bench: Bench) -> None:
    def use(stream: Stream) -> list[FinishedFrame]:
        stream.set_guidance_scale(3)
        stream.set_guidance(Guidance("self", 1.3, delta=0.5))
        return list(stream.run(FRAMES))

    guidance = Guidance("self", 1.3, delta=0.5)
    expected = bench.host(run(FRAMES), guidance=guidance)
    assert all(same(bench.host(use, guidance=guidance), expected))
    assert not any(same(expected, bench.host(run(FRAMES), guidance=Guidance("self", 1.3))))


def test_a_stream_is_opened_with_guidance(bench: Bench) -> None:
    guidance = Guidance("self", 1.4)
    options = OnnxRuntimeOptions(threads=1)
    with Stream.open(bench.bundle, prompt="a red fox", guidance=guidance, options=options) as stream:
        found = list(stream.run(FRAMES[:10]))
    assert all(same(found, bench.host(run(FRAMES[:10]), guidance=guidance)))
