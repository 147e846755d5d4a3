"""Other denoising steps in mid-stream: exact on the host, alike on the emulated GPU, beside the frames on their way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.host_pipeline import HostPipeline
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.newest_frames import newest_slots
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import STEP_LISTS, Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.test_cuda_pipeline import assert_alike, pipeline_of
from tests.runtime.test_stream_controls import both_forms, give, same

SINK = 8
on_and_off = pytest.mark.parametrize("overlap", [False, True])


def encode_clip(pipeline: HostPipeline, frames: Sequence[Image]) -> list[tuple[Array, Array]]:
    """Return latents and depth latents: the first 8 frames' depth in a range of its own, that of others one by one."""
    seen = [pipeline._see(frame) for frame in frames]
    depth_maps = [pipeline._depth.estimate(picture) for picture in seen]
    together = list(reference.depth_normalise(np.stack(depth_maps[:SINK])))
    ranged = together + [reference.depth_normalise(depth_map) for depth_map in depth_maps[SINK:]]
    stages = pipeline._stages
    return [(stages.encode(one), stages.encode_depth(depth)) for one, depth in zip(seen, ranged, strict=True)]


def stream_anew(pipeline: HostPipeline, frames: Sequence[Image], at: int, steps: tuple[int, ...]) -> list[Image]:
    """Warm up a denoiser of its own from the 8 frames before ``at``, and stream those from there on under it."""
    spec = pipeline.spec.with_step_list(steps)
    denoiser = Denoiser(spec, pipeline._network, PhiloxNoise(0, spec.latent_shape), pipeline.guidance)
    encoded = encode_clip(pipeline, frames)
    latents, depth_latents = zip(*encoded[at - SINK : at], strict=True)
    denoiser.warm_up(np.stack(latents), np.stack(depth_latents))
    finished: list[Image] = []
    for frame in range(at, len(frames) + len(steps) - 1):
        if frame < len(frames):
            denoiser.enter(frame, *encoded[frame])
        tick = denoiser.tick()
        if tick.finished is not None:
            finished += pipeline._decode(tick.prediction.x0[-1:]).pictures
    return finished


@pytest.mark.parametrize("at", [8, 11, 16, 21])
@pytest.mark.parametrize(("before", "after"), [(2, (20, 30, 40)), (3, (35,)), (2, (25, 45)), (1, (5, 15, 25, 35))])
def test_it_goes_on_as_a_new_stream_that_was_warmed_up_from_the_kept_frames(
    bench: Bench, before: int, after: tuple[int, ...], at: int
) -> None:
    check_change(bench, before, after, at, NO_GUIDANCE)


@pytest.mark.parametrize("kind", ["self", "initialize", "full"])
def test_guidance_goes_on_under_other_steps(bench: Bench, kind: GuidanceKind) -> None:
    negative_prompt = "" if kind == "self" else "two cats"
    check_change(bench, 2, (20, 30, 40), 11, Guidance(kind, 1.5, negative_prompt))


@pytest.mark.parametrize("kind", ["self", "initialize", "full"])
def test_another_kind_of_guidance_goes_on_as_a_new_stream_that_was_guided_by_it(
    bench: Bench, kind: GuidanceKind
) -> None:
    guidance = Guidance(kind, 1.5, "" if kind == "self" else "two cats")
    check_change(bench, 2, STEP_LISTS[2], 11, NO_GUIDANCE, guidance)


def check_change(
    bench: Bench, before: int, after: tuple[int, ...], at: int, guidance: Guidance, then: Guidance | None = None
) -> None:
    frames = pictures(at + 10)
    unchanged = bench.host(run(frames[:at]), before, guidance=guidance)

    def changed(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:at])
        stream.set_step_list(after)
        stream.set_guidance(then or guidance)
        finished += give(stream, frames[at:])
        expected.extend(stream_anew(bench.hosts[before, guidance.kind], frames, at, after))
        # The denoiser of its own left the network with the same steps.
        return [*finished, *stream.flush()]

    expected: list[Image] = []
    found = bench.host(changed, before, guidance=guidance)
    assert [frame.index for frame in found] == list(range(at + 10))
    assert all(same(found[:at], unchanged))
    assert all(np.array_equal(one.image, other) for one, other in zip(found[at:], expected, strict=True))
    assert all(frame.image.std() > 1 for frame in found)


def change_everything(stream: Stream) -> list[FinishedFrame]:
    """Stream two clips whose steps change before, in and behind warm-up, up to four and down to one."""
    frames = pictures(30)
    finished = give(stream, frames[:11])
    stream.set_step_list((10, 20, 30, 40))
    finished += give(stream, frames[11:13])
    stream.set_seed(5)
    stream.set_strength(0.3)
    finished += give(stream, frames[13:24])
    stream.set_step_list((30,))
    stream.set_prompt("two cats")
    finished += give(stream, frames[24:25])
    stream.set_step_list((20, 40))
    finished += stream.run(frames[25:], ahead=stream.full_ahead)
    finished += give(stream, frames[:3])
    stream.set_step_list((15, 25, 35))
    return [*finished, *stream.run(frames[3:12], ahead=stream.full_ahead)]


@on_and_off
@both_forms
@pytest.mark.parametrize("rows", [1, 3])
def test_steps_change_alike_on_the_gpu(bench: Bench, gpu: EmulatedGpu, form: Form, rows: int, overlap: bool) -> None:
    expected = bench.host(change_everything)
    found = bench.device(change_everything, form, rows, max_steps=4, overlap=overlap)
    assert_alike(found, expected)
    assert all(frame.image.std() > 1 for frame in found)


@on_and_off
def test_guidance_goes_on_alike_on_the_gpu(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    guidance = Guidance("self", 1.3)
    expected = bench.host(change_everything, guidance=guidance)
    found = bench.device(change_everything, "split", 3, guidance=guidance, max_steps=4, overlap=overlap)
    assert_alike(found, expected, most_unequal=0.01)  # guidance makes rounding larger, too
    unguided = bench.device(change_everything, "split", 3, max_steps=4, overlap=overlap)
    assert not np.array_equal(found[-1].image, unguided[-1].image)


@on_and_off
def test_steps_are_prepared_beside_frames_on_their_way(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    """Setting them runs nothing and waits for nothing; frames on their way are what they would have been."""
    frames = pictures(14)
    expected = bench.device(run(frames), "split", overlap=overlap)
    with bench.stream("split", 2, max_steps=3, overlap=overlap) as stream:
        finished = give(stream, frames[:12])
        pipeline = pipeline_of(stream)
        pending = [pipeline.tick(12, frames[12]).pending]
        gpu.works.clear()
        syncs = gpu.syncs
        stream.set_step_list((20, 30, 40))
        assert (gpu.syncs, set(gpu.works)) == (syncs, {"upload"})
        pending.append(pipeline.tick(None, None).pending)
        found = [*(frame.image for frame in finished), *(image for one in pending for image in one.wait())]
    assert all(np.array_equal(one, other.image) for one, other in zip(found, expected[:13], strict=True))


@both_forms
def test_a_change_takes_no_memory_and_leaves_none(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    with bench.stream(form, 2, max_steps=4) as stream:
        give(stream, pictures(10))
        gpu.finish()
        before = gpu.memory.allocated
        for steps in ((10, 20, 30, 40), (30,), (20, 40)):
            stream.set_step_list(steps)
            give(stream, pictures(3))
        stream.flush()
        gpu.finish()
        assert gpu.memory.allocated == before
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_more_steps_than_a_stream_was_opened_for_change_nothing(bench: Bench, gpu: EmulatedGpu) -> None:
    frames = pictures(12)

    def refused(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:10])
        with pytest.raises(ControlError, match=r"room for 2 .*max_steps=3"):
            stream.set_step_list((20, 30, 40))
        return [*finished, *stream.run(frames[10:])]

    assert all(same(bench.device(refused, "split"), bench.device(run(frames), "split")))


def test_steps_that_cant_be_prepared_change_nothing(
    bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BackendError("it can't be captured", "Try again")

    frames = pictures(12)
    expected = bench.device(run(frames), "split")
    with bench.stream("split", 2, max_steps=3) as stream:
        finished = give(stream, frames[:10])
        with monkeypatch.context() as patch:
            patch.setattr("live2diff_trt.runtime.tick.Tick.capture", refuse)
            with pytest.raises(BackendError):
                stream.set_step_list((20, 30, 40))
        assert all(same([*finished, *stream.run(frames[10:])], expected))


@pytest.mark.parametrize("max_steps", [1, 9])
def test_there_is_room_for_the_steps_that_it_is_opened_with_and_for_eight_at_most(
    bench: Bench, gpu: EmulatedGpu, max_steps: int
) -> None:
    with pytest.raises(SpecError, match="Use 2 to 8"):
        bench.stream("split", 2, max_steps=max_steps)


@pytest.mark.parametrize(
    ("streamed", "slots"),
    [
        (0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, [3, 4, 5, 6, 7, 8, 9, 10]),
        (8, [8, 9, 10, 11, 12, 13, 14, 15]),
        (13, [13, 14, 15, 8, 9, 10, 11, 12]),
    ],
)
def test_the_newest_frames_are_in_the_slots_that_were_written_last(streamed: int, slots: list[int]) -> None:
    assert newest_slots(streamed, window=16, sink=8) == slots
