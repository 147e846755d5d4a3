"""Every kind of guidance on the emulated GPU: alike with the host, at no cost to others, in memory that was known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from live2diff_trt import Guidance, SceneCut, SimilarImageFilter, Stream, Transition
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.cuda_session import estimate_for, find_plans
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.guidance import GuidanceKind
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from tests.runtime.emulated_bench import Bench, Use, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.test_cuda_pipeline import GRAIN_BYTES, assert_alike, pipeline_of
from tests.runtime.test_lanes import PACES
from tests.runtime.test_stream_controls import give, paused_at, same, still
from tests.runtime.test_stream_guidance import turn_to

MOST_UNEQUAL = 0.015
"""Guidance makes rounding larger, too: 0.0102 was the most that was seen at T = 3 and less."""
FRAMES = pictures(14)
GUIDANCE: dict[GuidanceKind, Guidance] = {
    "none": Guidance(),
    "self": Guidance("self", 1.3, delta=0.8),
    "initialize": Guidance("initialize", 1.3, "two cats", 0.8),
    "full": Guidance("full", 1.5, "two cats"),
}
both_forms = pytest.mark.parametrize("form", ["split", "whole"])
on_and_off = pytest.mark.parametrize("overlap", [False, True])
by_the_unet = pytest.mark.parametrize("kind", ["full", "initialize"])


def change_all_of(guidance: Guidance) -> Use:
    """Return a use in which scale and negative prompt change in mid-stream, where the kind has them."""
    prompt = "a green car" if guidance.negative_prompt else ""

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, FRAMES[:10])
        stream.set_guidance_scale(1.7)
        finished += give(stream, FRAMES[10:11])
        stream.set_guidance(Guidance(guidance.kind, 1.2, prompt, guidance.delta))
        return [*finished, *stream.run(FRAMES[11:], ahead=stream.full_ahead)]

    return use


@both_forms
@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("kind", ["self", "initialize", "full"])
def test_guidance_is_alike_on_the_gpu(
    bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind, rows: int, steps: int, form: Form
) -> None:
    guidance = GUIDANCE[kind]
    use = change_all_of(guidance)
    one, other = (bench.device(use, form, rows, steps, guidance=guidance, overlap=on) for on in (False, True))
    assert all(same(one, other))
    assert_alike(one, bench.host(use, steps, guidance=guidance), MOST_UNEQUAL)


@both_forms
def test_more_rows_than_warm_up_has_run_in_chunks(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    """T = 8 under both prompts are 16 rows, each step of which adds its rounding."""
    use, guidance = run(FRAMES[:10]), GUIDANCE["full"]
    found = bench.device(use, form, 3, 8, guidance=guidance)
    assert_alike(found, bench.host(use, 8, guidance=guidance), 2 * MOST_UNEQUAL)


@pytest.mark.parametrize("kind", ["self", "initialize", "full"])
def test_a_short_clip_is_guided(bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind) -> None:
    use, guidance = run(FRAMES[:5]), GUIDANCE[kind]
    assert_alike(bench.device(use, "split", guidance=guidance), bench.host(use, guidance=guidance), MOST_UNEQUAL)


@by_the_unet
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_negative_prompt_acts_on_the_next_tick(
    bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind, steps: int
) -> None:
    """Where the UNet is asked in every step, it acts on frames on their way; else on those that come from then on."""

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, FRAMES[:11])
        stream.set_guidance(Guidance(kind, 1.5, "a green car"))
        return [*finished, *stream.run(FRAMES[11:])]

    guidance = Guidance(kind, 1.5)
    unchanged, changed = (bench.device(one, "split", 2, steps, guidance=guidance) for one in (run(FRAMES), use))
    first = 12 - steps if kind == "full" else 11
    assert same(changed, unchanged) == [True] * first + [False] * (14 - first)


@by_the_unet
@pytest.mark.parametrize("steps", [1, 3])
def test_the_scale_acts_on_the_next_tick(bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind, steps: int) -> None:
    guidance = Guidance(kind, 1.1)
    unchanged, changed = (
        bench.device(one, "split", 2, steps, guidance=guidance) for one in (run(FRAMES), turn_to(1.6, 11))
    )
    assert same(changed, unchanged) == [True] * (12 - steps) + [False] * (2 + steps)


@by_the_unet
def test_setting_guidance_waits_for_nothing(bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind) -> None:
    with bench.stream("split", 2, guidance=Guidance(kind)) as stream:
        give(stream, FRAMES[:8])
        pipeline = pipeline_of(stream)
        pending = pipeline.tick(8, FRAMES[8]).pending
        syncs, waits = gpu.syncs, gpu.waits
        stream.set_guidance(Guidance(kind, 2, "two cats"))
        stream.set_guidance_scale(3)
        assert gpu.waits == waits
        assert gpu.syncs <= syncs + 1  # on the event of a staging slot that nobody used
        pending.wait()


@on_and_off
@both_forms
@pytest.mark.parametrize(("kind", "steps"), [("full", 3), ("initialize", 1)])
def test_a_guided_tick_is_a_launch_for_each_part_and_waits_for_nothing(
    bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind, form: Form, steps: int, overlap: bool
) -> None:
    with bench.stream(form, 2, steps, guidance=GUIDANCE[kind], overlap=overlap) as stream:
        give(stream, FRAMES[:8])
        pipeline = pipeline_of(stream)
        pending = []
        for index, picture in enumerate(FRAMES[8:11], start=8):
            gpu.works.clear()
            waits = gpu.waits
            submitted = pipeline.tick(index, picture)
            delivered = ["deliver"] if submitted.finished is not None else []
            assert gpu.works == ["fetch", *["graph"] * (5 if overlap else 1), *delivered]
            assert gpu.waits == waits
            pending.append(submitted.pending)
        assert sum(len(one.wait()) for one in pending) == 4 - steps


def test_what_a_kind_does_not_need_it_does_not_launch(bench: Bench, gpu: EmulatedGpu) -> None:
    """Of three steps: origins are taken, but where the UNet gives them, and move on twice; rows see two tensors each.

    Room for other kinds costs a tick nothing.
    """
    dtype = Bundle.open(bench.bundle, ()).spec.dtype
    alone, beside_others = count_launches(bench, gpu, ()), count_launches(bench, gpu, tuple(GUIDANCE))
    assert alone == beside_others
    for kind, copies in {"self": 3, "initialize": 2 + 2, "full": 3 * 2}.items():
        more = {f"lcm_step_{kind}_{dtype}": 1, "copy_vectors": copies}
        assert steps_and_copies(alone[kind] - alone["none"]) == more
        assert steps_and_copies(alone["none"] - alone[kind]) == {f"lcm_step_{dtype}": 1}


def count_launches(bench: Bench, gpu: EmulatedGpu, kinds: tuple[GuidanceKind, ...]) -> dict[str, Counter[str]]:
    """Return what a tick of three steps enqueues, by kind."""
    works: dict[str, Counter[str]] = {}
    for kind, guidance in GUIDANCE.items():
        with bench.stream("split", 3, 3, guidance=guidance, guidance_kinds=kinds) as stream:
            parts = pipeline_of(stream).parts
            gpu.works.clear()
            parts.tick.enqueue(parts.memory.stream)
            works[kind] = Counter(gpu.works)
    return works


def steps_and_copies(works: Counter[str]) -> Counter[str]:
    """Return what of a tick's work is not the UNet's, whose chunks are more with more rows."""
    return Counter({name: count for name, count in works.items() if name.startswith(("lcm_step", "copy"))})


@both_forms
@pytest.mark.parametrize(
    ("kinds", "steps", "max_steps", "overlap"),
    [
        *((("full",), 2, 3, False), (("initialize",), 3, 3, True)),
        *((("self", "full"), 1, 2, True), (("full", "initialize"), 2, 8, False)),
    ],
)
def test_the_estimate_is_the_allocation(
    bench: Bench,
    gpu: EmulatedGpu,
    form: Form,
    kinds: tuple[GuidanceKind, ...],
    steps: int,
    max_steps: int,
    overlap: bool,
) -> None:
    with bench.stream(form, 3, steps, guidance_kinds=kinds, max_steps=max_steps, overlap=overlap) as stream:
        memory = pipeline_of(stream).parts.memory
        bundle, options = Bundle.open(bench.bundle), bench.options(form, 3, overlap=overlap)
        estimate = estimate_for(bundle, stream.spec, options, room=StreamRoom.of(max_steps, kinds))
        assert estimate is not None
        assert memory.allocated == estimate.own
        gpu.finish()
        before = gpu.memory.allocated
        assert 0 <= before - estimate.allocated < 25 * GRAIN_BYTES  # every allocation is rounded up to it
        stream.set_guidance(Guidance(kinds[-1]))
        give(stream, pictures(10))
        gpu.finish()
        assert gpu.memory.allocated == before


def change_kinds(stream: Stream) -> list[FinishedFrame]:
    """Go through all kinds, before, in and behind warm-up, with steps, seeds and prompts that change as well."""
    frames = pictures(32)
    finished = give(stream, frames[:3])
    stream.set_guidance(GUIDANCE["full"])
    finished += give(stream, frames[3:11])
    stream.set_guidance(GUIDANCE["self"])
    stream.set_step_list((20, 30, 40))
    stream.set_guidance_scale(1.1)
    finished += give(stream, frames[11:14])
    stream.set_guidance(GUIDANCE["initialize"])
    stream.set_seed(5)
    finished += give(stream, frames[14:19])
    stream.set_guidance(Guidance("full", 1.4, "a green car"))
    stream.set_strength(0.3)
    finished += give(stream, frames[19:21])
    stream.set_guidance(Guidance("full", 1.2, "two cats"))
    stream.set_prompt("a blue house", Transition(3, "frames"))
    finished += stream.run(frames[21:26], ahead=stream.full_ahead)
    stream.set_guidance(Guidance())
    return [*finished, *stream.run(frames[26:], ahead=stream.full_ahead), *give_again(stream)]


def give_again(stream: Stream) -> list[FinishedFrame]:
    """Stream another clip, whose kind changes once it is warm."""
    finished = give(stream, pictures(9))
    stream.set_guidance(GUIDANCE["full"])
    return [*finished, *stream.run(pictures(2))]


@both_forms
@pytest.mark.parametrize(("rows", "overlap"), [(1, True), (3, False)])
def test_kinds_change_alike_on_the_gpu(bench: Bench, gpu: EmulatedGpu, form: Form, rows: int, overlap: bool) -> None:
    expected = bench.host(change_kinds)
    gpu.keep_pace(PACES["by chance"])
    found = bench.device(change_kinds, form, rows, guidance_kinds=tuple(GUIDANCE), max_steps=3, overlap=overlap)
    assert_alike(found, expected, MOST_UNEQUAL)
    assert all(frame.image.std() > 1 for frame in found)


@on_and_off
def test_a_kind_is_ready_from_the_opening_on(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    """Setting it enqueues nothing and waits for nothing; frames on their way are what they would have been."""
    expected = bench.device(run(FRAMES), "split", overlap=overlap)
    with bench.stream("split", 2, guidance_kinds=("full",), overlap=overlap) as stream:
        finished = give(stream, FRAMES[:12])
        pipeline = pipeline_of(stream)
        pending = [pipeline.tick(12, FRAMES[12]).pending]
        gpu.works.clear()
        syncs = gpu.syncs
        stream.set_guidance(Guidance("full", 2, "two cats"))
        assert (gpu.syncs, set(gpu.works)) == (syncs, set())
        pending.append(pipeline.tick(None, None).pending)
        found = [*(frame.image for frame in finished), *(image for one in pending for image in one.wait())]
    assert all(np.array_equal(one, other.image) for one, other in zip(found, expected[:13], strict=True))


def test_a_kind_that_the_stream_was_not_opened_for_changes_nothing(bench: Bench, gpu: EmulatedGpu) -> None:
    def refused(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, FRAMES[:10])
        with pytest.raises(ControlError, match=r"no room for guidance of the kind full\. Open it with guidance_kinds="):
            stream.set_guidance(Guidance("full"))
        stream.set_guidance(Guidance())
        return [*finished, *stream.run(FRAMES[10:])]

    found = bench.device(refused, "split", guidance_kinds=("self",))
    assert all(same(found, bench.device(run(FRAMES), "split")))


@pytest.mark.usefixtures("gpu")
def test_plans_are_chosen_by_all_rows(bench: Bench) -> None:
    for rows in (2, 3):
        bench.options("split", rows)
    bundle, options = Bundle.open(bench.bundle), TensorRTOptions(plans=bench.root)
    wanted = {StreamRows(2): 2, StreamRows(2, "initialize"): 3, StreamRows(2, "full"): 2, StreamRows(3, "full"): 3}
    for streamed, rows in wanted.items():
        assert find_plans(bundle, streamed, options)[2].manifest.key.rows == rows


@by_the_unet
def test_a_pause_changes_no_bit_of_what_follows(bench: Bench, gpu: EmulatedGpu, kind: GuidanceKind) -> None:
    found, never_paused = (
        bench.device(use, "split", steps=3, guidance=GUIDANCE[kind], overlap=True)
        for use in (paused_at(FRAMES, 11), run(FRAMES))
    )
    assert all(same([frame for frame in found if not frame.repeated], never_paused))


@by_the_unet
@both_forms
def test_skips_cuts_and_rewarms_are_guided(bench: Bench, gpu: EmulatedGpu, form: Form, kind: GuidanceKind) -> None:
    def use(stream: Stream) -> list[FinishedFrame]:
        stream.set_rewarm_on_cut(SceneCut())
        stream.set_similar_image_filter(SimilarImageFilter(0.99, 3))
        finished = give(stream, still([*pictures(9), *(picture // 3 for picture in pictures(10))], 17, 4))
        stream.set_similar_image_filter(None)
        stream.rewarm()
        return [*finished, *stream.run(pictures(9), ahead=stream.full_ahead)]

    expected = bench.host(use, guidance=GUIDANCE[kind])
    found = bench.device(use, form, guidance=GUIDANCE[kind], overlap=True)
    assert_alike(found, expected, MOST_UNEQUAL)
    assert any(frame.repeated for frame in found)
