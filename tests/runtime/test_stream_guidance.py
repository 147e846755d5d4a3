"""Guidance on a real bundle: what its scale must and must not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from live2diff_trt import Guidance, Stream
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.runtime.cuda_session import estimate_for
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.guidance import GuidanceKind
from tests.runtime.emulated_bench import Bench, Use, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.test_cuda_pipeline import assert_alike, pipeline_of

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


@pytest.mark.parametrize("form", ["split", "whole"])
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 3), (3, 2)])
def test_guidance_is_alike_on_the_gpu(bench: Bench, gpu: EmulatedGpu, form: Form, rows: int, steps: int) -> None:
    guidance = Guidance("self", 1.1, delta=0.8)
    use = turn_to(1.6, 11)
    assert_alike(bench.device(use, form, rows, steps, guidance=guidance), bench.host(use, steps, guidance=guidance))


def test_a_short_clip_is_guided_on_the_gpu(bench: Bench, gpu: EmulatedGpu) -> None:
    use, guidance = run(FRAMES[:5]), Guidance("self", 1.4)
    assert_alike(bench.device(use, "split", guidance=guidance), bench.host(use, guidance=guidance))


def test_ticks_that_overlap_keep_their_own_origins(bench: Bench, gpu: EmulatedGpu) -> None:
    guidance = Guidance("self", 1.4)
    use = run(FRAMES, ahead=3)
    assert_alike(
        bench.device(use, "split", steps=3, overlap=True, guidance=guidance), bench.host(use, 3, guidance=guidance)
    )


def test_without_guidance_a_tick_does_nothing_more(bench: Bench, gpu: EmulatedGpu) -> None:
    """Guided, a tick of three steps has one copy more that takes a frame's origin, and two that move rows on.

    What is filled with zeros is their memory.
    """
    works: dict[str, Counter[str]] = {}
    for kind, guidance in {"none": Guidance(), "self": Guidance("self")}.items():
        gpu.works.clear()
        with bench.stream("split", 2, steps=3, guidance=guidance) as stream:
            works[kind] = Counter(gpu.works)
            assert ("guidance" in pipeline_of(stream).parts.memory.allocated) == (kind == "self")
    dtype = Bundle.open(bench.bundle, ()).spec.dtype
    assert works["self"] - works["none"] == {f"lcm_step_guided_{dtype}": 1, "copy_vectors": 3, "fill": 1}
    assert works["none"] - works["self"] == {f"lcm_step_{dtype}": 1}


def test_the_estimate_counts_the_origins(bench: Bench, gpu: EmulatedGpu) -> None:
    guidance = Guidance("self")
    with bench.stream("split", 2, guidance=guidance) as stream:
        bundle, options = Bundle.open(bench.bundle), bench.options("split", 2)
        estimate = estimate_for(bundle, stream.spec, options, guidance, max_steps=stream.spec.steps)
        assert estimate is not None
        parts = {purpose: size for purpose, size in estimate.parts.items() if purpose != "weights"}
        assert pipeline_of(stream).parts.memory.allocated == parts


@pytest.mark.parametrize("kind", ["full", "initialize"])
def test_what_tensorrt_can_not_do_is_refused_with_the_remedy(
    bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind
) -> None:
    with pytest.raises(ControlError, match=f"no guidance of the kind {kind}.*--backend onnxruntime"):
        bench.stream("split", 2, guidance=Guidance(kind))
    assert gpu.works == []
