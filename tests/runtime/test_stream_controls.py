"""Controls on real backends: exact where they must change nothing, and alike on the host and on the emulated GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from live2diff_trt import PromptBlend, SceneCut, SimilarImageFilter, Transition
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.pipeline import Pending
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import PROMPT, Bench, Use, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import ForeignPicture
from tests.runtime.test_cuda_pipeline import assert_alike

both_forms = pytest.mark.parametrize("form", ["split", "whole"])
BLEND = PromptBlend({"a red fox": 1, "a blue house": 3}, "spherical")


def give(stream: Stream, frames: Sequence[Any]) -> list[FinishedFrame]:
    return [finished for picture in frames for finished in stream(picture)]


def same(found: Sequence[FinishedFrame], expected: Sequence[FinishedFrame]) -> list[bool]:
    return [np.array_equal(one.image, other.image) for one, other in zip(found, expected, strict=True)]


def still(frames: Sequence[Image], at: int, count: int) -> list[Image]:
    """Return the frames, with one of them a number of times more."""
    return [*frames[: at + 1], *[frames[at]] * count, *frames[at + 1 :]]


def paused_at(frames: Sequence[Image], at: int) -> Use:
    """Return a use in which five more frames come, in a pause."""

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:at])
        stream.pause()
        finished += give(stream, pictures(5, 30, 40))
        stream.resume()
        return [*finished, *stream.run(frames[at:])]

    return use


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("at", [3, 8, 11])
def test_a_pause_changes_no_bit_of_what_follows(bench: Bench, at: int, steps: int) -> None:
    frames = pictures(16)
    never_paused = bench.host(run(frames), steps)
    found = bench.host(paused_at(frames, at), steps)
    assert [frame.index for frame in found] == list(range(21))
    assert all(frame.image is found[at - 1].image for frame in found[at : at + 5])
    assert all(same([frame for frame in found if not frame.repeated], never_paused))


@both_forms
@pytest.mark.parametrize("overlap", [False, True])
def test_a_pause_changes_no_bit_on_the_gpu(bench: Bench, gpu: EmulatedGpu, form: Form, overlap: bool) -> None:
    frames = pictures(16)
    never_paused = bench.device(run(frames), form, steps=3, overlap=overlap)
    found = bench.device(paused_at(frames, 11), form, steps=3, overlap=overlap)
    assert all(same([frame for frame in found if not frame.repeated], never_paused))


@pytest.mark.parametrize("at", [3, 8, 12])
def test_a_rewarm_is_a_new_clip_bit_by_bit(bench: Bench, at: int) -> None:
    frames = pictures(24)

    def rewarmed(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:at])
        stream.rewarm()
        return [*finished, *stream.run(frames[at:])]

    found = bench.host(rewarmed, steps=3)
    expected = bench.host(lambda stream: [*stream.run(frames[:at]), *stream.run(frames[at:])], steps=3)
    assert [frame.index for frame in found] == list(range(24))
    assert all(same(found, expected))
    assert all(frame.image.std() > 1 for frame in found)


def cut_and_filtered(stream: Stream) -> list[FinishedFrame]:
    """Stream two scenes, the second with frames that stand still, and take frames ahead where that is of use."""
    stream.set_rewarm_on_cut(SceneCut())
    stream.set_similar_image_filter(SimilarImageFilter(0.99, 3))
    second = still([picture // 3 for picture in pictures(14)], 10, 6)
    return list(stream.run([*pictures(11), *second], ahead=stream.full_ahead))


@both_forms
def test_cuts_and_similar_frames_are_alike_on_the_gpu(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    expected = bench.host(cut_and_filtered, steps=3)
    found = bench.device(cut_and_filtered, form, steps=3)
    assert_alike(found, expected)
    assert [frame.repeated for frame in found] == [frame.repeated for frame in expected]
    assert any(frame.repeated for frame in found)


def test_a_frame_is_computed_as_if_the_skipped_ones_had_never_come(bench: Bench) -> None:
    """Their numbers are left out, so its noise is its own; what it sees of the past is what was computed."""
    frames = still(pictures(14), 10, 4)

    def filtered(stream: Stream) -> list[FinishedFrame]:
        stream.set_similar_image_filter(SimilarImageFilter(0.999, 4))
        return list(stream.run(frames))

    found = bench.host(filtered)
    assert [frame.index for frame in found if frame.repeated] == [11, 12, 13, 14]
    pipeline = bench.hosts[2, "none"]
    for index in range(8):
        pipeline.gather(index, frames[index])
    pending: list[Pending] = [pipeline.warm_up(8)]
    pending += [pipeline.tick(index, frames[index]).pending for index in (8, 9, 10, 15, 16, 17)]
    pending.append(pipeline.tick(None, None).pending)
    pipeline.reset()
    expected = [image for one in pending for image in one.wait()]
    computed = [frame.image for frame in found if not frame.repeated]
    assert all(np.array_equal(one, other) for one, other in zip(computed, expected, strict=True))


def turned(stream: Stream) -> list[FinishedFrame]:
    """Stream while prompts turn into others."""
    frames = pictures(18)
    finished = give(stream, frames[:10])
    stream.set_prompt(BLEND, Transition(3, "frames"))
    finished += give(stream, frames[10:12])
    stream.set_prompt("two cats", Transition(0.2, interpolation="spherical"))
    return [*finished, *stream.run(frames[12:], ahead=stream.full_ahead)]


@both_forms
def test_prompts_turn_into_others_alike_on_the_gpu(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    found, unchanged = bench.device(turned, form, rows=1), bench.device(run(pictures(18)), form, rows=1)
    assert_alike(found, bench.host(turned))
    # T = 2: when the transition began, frame 9 was on its way.
    assert same(found, unchanged) == [True] * 9 + [False] * 9


def test_a_blend_of_one_is_the_prompt_itself(bench: Bench) -> None:
    def blended(stream: Stream) -> list[FinishedFrame]:
        stream.set_prompt("a blue house")
        stream.set_prompt(PromptBlend({PROMPT: 2.5, "a blue house": 0}, "spherical"))
        return list(stream.run(pictures(10)))

    assert all(same(bench.host(blended), bench.host(run(pictures(10)))))


def test_a_transition_ends_in_the_prompt_itself(bench: Bench) -> None:
    """With one step and a new clip, nothing of the way there is left."""

    def used(stream: Stream, transition: Transition | None) -> list[FinishedFrame]:
        stream.set_prompt("a blue house", transition)
        give(stream, pictures(10))
        stream.rewarm()
        return list(stream.run(pictures(10)))[-10:]

    turned = bench.host(lambda stream: used(stream, Transition(5, "frames")))
    assert all(same(turned, bench.host(lambda stream: used(stream, None))))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_transition_makes_the_host_wait_for_nothing(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    """With as many frames ahead as keep every lane busy; only the encoding of the prompt is waited for."""
    with bench.stream("split", 2, overlap=overlap) as stream:
        give(stream, pictures(8))
        stream.set_prompt(BLEND, Transition(10, "frames"))
        pending = []
        for picture in pictures(14):
            waits = gpu.waits
            stream._take(picture, None)
            assert gpu.waits == waits
            pending += [stream._queue.pop() for _ in range(len(stream._queue))]
            if len(pending) > stream.full_ahead:
                pending.pop(0).deliver()


def test_a_pause_takes_pictures_on_the_device(bench: Bench, gpu: EmulatedGpu) -> None:
    with bench.stream("split", 2) as stream:
        give(stream, [ForeignPicture(gpu, picture) for picture in pictures(9)])
        stream.pause()
        assert [frame.index for frame in stream(ForeignPicture(gpu, pictures(1)[0]))] == [8, 9]


@pytest.mark.parametrize("wait", [False, True])
def test_embeddings_that_change_faster_than_they_are_read_are_still_their_own(
    bench: Bench, gpu: EmulatedGpu, wait: bool
) -> None:
    """A tick's own are not written over by those of a later one, however late they are read."""
    expected = bench.host(lambda stream: change_fast(stream, gpu, wait=False), steps=1)
    with bench.stream("split", 2, steps=1) as stream:
        found = change_fast(stream, gpu, wait=wait)
    assert all(
        np.abs(one.image.astype(int) - other.image).max() <= 1 for one, other in zip(found, expected, strict=True)
    )


def change_fast(stream: Stream, gpu: EmulatedGpu, *, wait: bool) -> list[FinishedFrame]:
    """Set six prompts between two ticks that nobody waits for, unless ``wait``."""
    finished = give(stream, pictures(8))
    words = ["a red fox", "a blue house", "two cats"]
    encoded = [stream._pipeline.encode_prompt(word) for word in words]
    for picture in pictures(3):
        for scale in range(6):
            stream._pipeline.set_text_embeddings(encoded[scale % 3] * (1 + scale))
        stream._take(picture, None)
        if wait:
            gpu.finish()
    return [*finished, *stream.flush()]
