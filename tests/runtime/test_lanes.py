"""Lanes that overlap give the same bits as one stream, however far one of them gets before another.

The emulated GPU's streams run at every pace that the edges between them allow: one as early as it may, another as late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.runtime import device_frames
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.lanes import lane_of
from live2diff_trt.runtime.pipeline import Pending
from live2diff_trt.runtime.prompt_blend import Transition
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import ForeignPicture
from tests.runtime.emulated_streams import Pace


def lanes_at(denoise: float, enter: float, decode: float, seed: int = 0) -> Pace:
    """Return a pace of the lanes. Before their streams, that of the plans is made, which is idle by then."""
    return Pace((0, denoise, enter, decode), seed)


PACES = {
    "all late": lanes_at(0, 0, 0),
    "all early": lanes_at(1, 1, 1),
    "denoise early": lanes_at(1, 0, 0),
    "enter early": lanes_at(0, 1, 0),
    "decode early": lanes_at(0, 0, 1),
    "denoise late": lanes_at(0, 1, 1),
    "enter late": lanes_at(1, 0, 1),
    "decode late": lanes_at(1, 1, 0),
    "by chance": lanes_at(0.5, 0.5, 0.5, seed=1),
    "by another chance": lanes_at(0.5, 0.5, 0.5, seed=2),
}
at_every_pace = pytest.mark.parametrize("pace", PACES.values(), ids=PACES)


@pytest.fixture
def gpu(gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    monkeypatch.setattr(device_frames, "SOURCE_BYTES", 5000)  # small pictures make it grow
    return gpu


@pytest.fixture(scope="module")
def known() -> dict[str, list[Any]]:
    """What was made without overlap already."""
    return {}


def different(found: Sequence[Image], expected: Sequence[Image]) -> list[int]:
    """Return which pictures are not the same, bit by bit."""
    return [at for at, (a, b) in enumerate(zip(found, expected, strict=True)) if not np.array_equal(a, b)]


def pipeline_of(stream: Stream) -> CudaPipeline:
    pipeline = stream._pipeline
    assert isinstance(pipeline, CudaPipeline)
    return pipeline


def stream_everything(gpu: EmulatedGpu) -> Callable[[Stream], list[FinishedFrame]]:
    """Return a use of a stream in which everything happens that may happen between two ticks."""

    def first_clip(stream: Stream) -> Iterator[Any]:
        yield from pictures(4, 40, 30)
        yield from pictures(5, 50, 40)
        yield from (ForeignPicture(gpu, picture) for picture in pictures(2, 64, 50))
        stream.set_prompt("a blue house")
        yield pictures(12, 80, 60)[-1]
        stream.set_prompt("two cats")
        stream.set_seed(5)
        stream.set_prompt("a green car", Transition(3, "frames"))
        yield from (255 - picture for picture in pictures(3, 90, 70))

    def second_clip(stream: Stream) -> Iterator[Any]:
        yield from pictures(9)
        stream.pause()
        yield from pictures(2)
        stream.resume()
        yield pictures(1)[0]
        stream.set_step_list((20, 30, 40))
        yield from pictures(2)
        stream.rewarm()
        stream.set_step_list((30, 40))
        yield from pictures(9)
        stream.set_strength(0.6)
        yield from pictures(2)

    def use(stream: Stream) -> list[FinishedFrame]:
        long = list(stream.run(first_clip(stream), ahead=stream.full_ahead))
        controlled = list(stream.run(second_clip(stream), ahead=stream.full_ahead))
        short = list(stream.run(pictures(3, 50, 90), ahead=1))
        again = list(stream.run((ForeignPicture(gpu, picture) for picture in pictures(10)), ahead=5))  # type: ignore[misc]
        one_by_one = [frame for picture in pictures(10)[::-1] for frame in stream(picture)]
        return [*long, *controlled, *short, *again, *one_by_one, *stream.flush()]

    return use


def submit_everything(stream: Stream) -> list[Image]:
    """Submit clips that begin anew before anything of the last one was waited for; return all pictures at the end."""
    pipeline = stream._pipeline
    pending: list[Pending] = []
    for gathered, ticks in ((2, 4), (1, 3), (8, 4), (3, 0), (2, 2)):
        frames = pictures(gathered + ticks, 40 + 10 * ticks, 40)
        pipeline.reset()
        for index, picture in enumerate(frames[:gathered]):
            pipeline.gather(index, picture)
        pending.append(pipeline.warm_up(gathered))
        pending += [pipeline.tick(8 + index, picture).pending for index, picture in enumerate(frames[gathered:])]
    return [picture for one in pending for picture in one.wait()]


@at_every_pace
def test_everything_that_may_happen_between_ticks(
    bench: Bench, gpu: EmulatedGpu, known: dict[str, list[FinishedFrame]], pace: Pace
) -> None:
    use = stream_everything(gpu)
    if "streamed" not in known:
        known["streamed"] = bench.device(use, "split", max_steps=3, overlap=False)
    gpu.keep_pace(pace)
    found = bench.device(use, "split", max_steps=3, overlap=True)
    expected = known["streamed"]
    assert [(frame.index, frame.time) for frame in found] == [(frame.index, frame.time) for frame in expected]
    assert different([frame.image for frame in found], [frame.image for frame in expected]) == []


@at_every_pace
def test_a_clip_that_nobody_waits_for(
    bench: Bench, gpu: EmulatedGpu, known: dict[str, list[Image]], pace: Pace
) -> None:
    if "submitted" not in known:
        with bench.stream("split", 2, overlap=False) as stream:
            known["submitted"] = submit_everything(stream)
    gpu.keep_pace(pace)
    with bench.stream("split", 2, overlap=True) as stream:
        assert different(submit_everything(stream), known["submitted"]) == []


@pytest.mark.parametrize(
    ("form", "rows", "steps"), [("split", 2, 1), ("split", 2, 3), ("split", 3, 8), ("whole", 3, 4)]
)
def test_any_number_of_steps_on_plans_of_any_rows(
    bench: Bench, gpu: EmulatedGpu, form: Form, rows: int, steps: int
) -> None:
    use = run(pictures(12), ahead=3)
    expected = bench.device(use, form, rows, steps, overlap=False)
    gpu.keep_pace(PACES["by chance"])
    found = bench.device(use, form, rows, steps, overlap=True)
    assert different([frame.image for frame in found], [frame.image for frame in expected]) == []


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_every_frame_comes_out_once_and_in_order(bench: Bench, gpu: EmulatedGpu, count: int) -> None:
    gpu.keep_pace(PACES["by another chance"])
    found = bench.device(run(pictures(count), ahead=3), "split", overlap=True)
    assert [frame.index for frame in found] == list(range(count))


def test_pictures_that_stay_on_the_device_are_complete_when_they_are_delivered(bench: Bench, gpu: EmulatedGpu) -> None:
    expected = bench.device(run(pictures(12)), "split", overlap=False)
    gpu.keep_pace(PACES["decode late"])
    with bench.stream("split", 2, overlap=True, output="device") as stream:
        for one, other in zip(stream.run(pictures(12), ahead=3), expected, strict=True):
            image = gpu.memory.view(one.image.address, one.image.shape, "uint8")
            np.testing.assert_array_equal(image, other.image)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_lane_has_scratch_memory_of_its_own(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    with bench.stream("split", 2, overlap=overlap) as stream:
        plans = pipeline_of(stream).parts.unet.plans
        blocks = {(lane_of(name, overlap=overlap), plan.scratch) for name, plan in plans.items()}
    assert len(blocks) == len({lane for lane, _ in blocks}) == len({address for _, address in blocks})
    assert len(blocks) == (3 if overlap else 1)


def test_closing_waits_for_every_lane(bench: Bench, gpu: EmulatedGpu) -> None:
    stream = bench.stream("split", 2, overlap=True)
    pipeline = pipeline_of(stream)
    for picture in pictures(8):
        stream(picture)
    for index, picture in enumerate(pictures(3), start=8):
        pipeline.tick(index, picture)
    stream.close()
    gpu.finish()
    assert (gpu.memory.allocated, gpu.pinned.allocated) == (0, 0)


@pytest.mark.parametrize("overlap", [False, True])
def test_taking_frames_ahead_never_waits_for_staging(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    """With as many on their way as keep every lane busy, the host waits for the oldest picture and for nothing else."""
    with bench.stream("split", 2, overlap=overlap) as stream:
        assert stream.full_ahead == (3 if overlap else 1)
        for picture in pictures(8):
            stream(picture)
        pipeline, pending = pipeline_of(stream), deque[Pending]()
        for index, picture in enumerate(pictures(12), start=8):
            waits = gpu.waits
            pending.append(pipeline.tick(index, picture).pending)
            assert gpu.waits == waits
            if len(pending) > stream.full_ahead:
                pending.popleft().wait()


def test_a_frame_is_complete_without_the_next_one(bench: Bench, gpu: EmulatedGpu) -> None:
    """What a slow source sees: its frame's own tick is all that its picture waits for."""
    with bench.stream("split", 2, steps=1, overlap=True) as stream:
        assert [[frame.index for frame in stream(picture)] for picture in pictures(10)][7:] == [[*range(8)], [8], [9]]


def test_lanes_of_plans() -> None:
    plans = ("vae_encoder", "depth", "depth_embed", "segment_07", "unet", "text_encoder", "vae_decoder")
    assert [lane_of(plan, overlap=True) for plan in plans] == ["enter"] * 3 + ["denoise"] * 3 + ["decode"]
    assert {lane_of(plan, overlap=False) for plan in plans} == {"denoise"}
