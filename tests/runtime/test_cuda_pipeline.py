"""The TensorRT pipeline on an emulated GPU: the same pictures as ONNX Runtime's, no waiting, no memory beyond its word.

The emulation does enqueued work as late as it may, poisons memory, and fails where memory is touched that is not there.
What is tested is the order of the work, its addresses and its memory; real kernels and plans have tests of their own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.gpu_facts import GpuFacts
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.cuda_session import estimate_for
from live2diff_trt.runtime.device_frames import SOURCE_BYTES
from live2diff_trt.runtime.errors import DeviceMemoryError, FrameError
from live2diff_trt.runtime.frame import FinishedFrame, SourceFrame
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom
from tests.runtime.emulated_bench import Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import GPU, ForeignPicture
from tests.runtime.emulated_plans import EmulatedLoadedPlan, EmulatedPlanRuntime

GRAIN_BYTES = 512
MOST_UNEQUAL = 0.001
"""Of all bytes, how many may round to the neighbouring value: 0.0006 was the most that was seen."""
both_forms = pytest.mark.parametrize("form", ["split", "whole"])
on_and_off = pytest.mark.parametrize("overlap", [False, True])


def assert_alike(
    found: Sequence[FinishedFrame], expected: Sequence[FinishedFrame], most_unequal: float = MOST_UNEQUAL
) -> None:
    """Check that both are the same frames, and their pictures equal but for rounding."""
    assert [(frame.index, frame.time) for frame in found] == [(frame.index, frame.time) for frame in expected]
    for one, other in zip(found, expected, strict=True):
        apart = np.abs(one.image.astype(int) - other.image)
        assert apart.max() <= 1, f"frame {one.index}"
        assert np.count_nonzero(apart) <= most_unequal * apart.size, f"frame {one.index}"


@pytest.fixture(scope="module")
def twenty(bench: Bench) -> Callable[[int], list[FinishedFrame]]:
    """Return twenty frames of the host, by T: as many ticks as it takes for the ring to go round."""
    known: dict[int, list[FinishedFrame]] = {}

    def finish(steps: int) -> list[FinishedFrame]:
        if steps not in known:
            known[steps] = bench.host(run(pictures(20)), steps)
        return known[steps]

    return finish


def pipeline_of(stream: Stream) -> CudaPipeline:
    pipeline = stream._pipeline
    assert isinstance(pipeline, CudaPipeline)
    return pipeline


@both_forms
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_any_number_of_steps_runs_on_plans_of_any_rows(
    bench: Bench,
    gpu: EmulatedGpu,
    twenty: Callable[[int], list[FinishedFrame]],
    form: Form,
    rows: int,
    steps: int,
) -> None:
    assert_alike(bench.device(run(pictures(20)), form, rows, steps), twenty(steps))


def test_eight_steps_in_chunks_of_three(bench: Bench, gpu: EmulatedGpu) -> None:
    use = run(pictures(10))
    assert_alike(bench.device(use, "split", 3, 8), bench.host(use, 8))


@both_forms
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_every_frame_comes_out_once_and_in_order(bench: Bench, gpu: EmulatedGpu, form: Form, count: int) -> None:
    found = bench.device(run(pictures(count)), form)
    assert [frame.index for frame in found] == list(range(count))
    assert_alike(found, bench.host(run(pictures(count))))


@both_forms
def test_a_flush_begins_a_new_clip(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    def use(stream: Stream) -> list[FinishedFrame]:
        first = list(stream.run(pictures(18)))
        short = list(stream.run(pictures(3, 50, 90)))
        return [*first, *short, *stream.run(255 - picture for picture in pictures(12))]

    found = bench.device(use, form, rows=2, steps=3)
    assert [frame.index for frame in found] == [*range(18), *range(3), *range(12)]
    assert_alike(found, bench.host(use, steps=3))


@both_forms
def test_the_prompt_acts_on_the_next_tick(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    frames = pictures(14)

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = [frame for picture in frames[:11] for frame in stream(picture)]
        stream.set_prompt("a blue house")
        finished += [frame for picture in frames[11:12] for frame in stream(picture)]
        stream.set_prompt("two cats")
        stream.set_prompt("a green car on the beach")
        return [*finished, *stream.run(frames[12:])]

    found, unchanged = bench.device(use, form, rows=1), bench.device(run(frames), form, rows=1)
    assert_alike(found, bench.host(use))
    assert [np.array_equal(a.image, b.image) for a, b in zip(found, unchanged, strict=True)] == [True] * 10 + [
        False
    ] * 4


@both_forms
def test_the_seed_acts_on_the_next_tick(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    frames = pictures(16)

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = [frame for picture in frames[:11] for frame in stream(picture)]
        stream.set_seed(-3)
        finished += [frame for picture in frames[11:12] for frame in stream(picture)]
        stream.set_seed(7)
        return [*finished, *stream.run(frames[12:], ahead=stream.full_ahead)]

    found, unchanged = bench.device(use, form, rows=1), bench.device(run(frames), form, rows=1)
    assert_alike(found, bench.host(use))
    assert [np.array_equal(a.image, b.image) for a, b in zip(found, unchanged, strict=True)] == [True] * 11 + [
        False
    ] * 5


@both_forms
def test_a_source_may_change_its_size_and_need_not_be_contiguous(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    frames = [
        *pictures(9),
        *(picture[::-1, ::2] for picture in pictures(2, 200, 50)),
        *(np.asfortranarray(picture) for picture in pictures(2, 33, 64)),
        *(picture[:1, :1] for picture in pictures(2)),
    ]
    assert_alike(bench.device(run(frames), form), bench.host(run(frames)))


@pytest.mark.parametrize("steps", [1, 4])
def test_a_source_larger_than_the_room_for_it_makes_it_grow(bench: Bench, gpu: EmulatedGpu, steps: int) -> None:
    """While the stream is drained, nothing may read where the source was before."""
    large = np.ascontiguousarray(np.tile(pictures(1, 200, 100)[0], (13, 10, 1)))
    assert large.nbytes > SOURCE_BYTES
    frames = [*pictures(10), large]
    assert_alike(bench.device(run(frames), "split", steps=steps), bench.host(run(frames), steps))


@both_forms
def test_times_and_order_are_those_of_the_source(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    times = [Fraction(index**2, 90000) for index in range(12)]
    frames = [SourceFrame(picture, time) for picture, time in zip(pictures(12), times, strict=True)]
    assert [frame.time for frame in bench.device(run(frames), form)] == times
    with bench.stream(form, 2, steps=3) as stream:
        delivered = [[frame.index for frame in stream(picture)] for picture in pictures(12)]
        assert delivered == [[]] * 7 + [list(range(8)), [], [], [8], [9]]
        assert [frame.index for frame in stream.flush()] == [10, 11]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_pictures_that_are_fetched_late_are_still_their_own(
    bench: Bench, gpu: EmulatedGpu, twenty: Callable[[int], list[FinishedFrame]], ahead: int
) -> None:
    assert_alike(bench.device(run(pictures(20), ahead=ahead), "split"), twenty(2))


@pytest.mark.parametrize("seed", [7, -1, 2**70 + 5])
def test_any_seed_gives_the_noise_of_the_host(bench: Bench, gpu: EmulatedGpu, seed: int) -> None:
    use = run(pictures(10))
    assert_alike(bench.device(use, "split", seed=seed), bench.host(use, seed=seed))


@both_forms
def test_a_picture_may_be_on_the_device_already(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    frames = pictures(12)

    def use(stream: Stream) -> list[FinishedFrame]:
        mixed = (picture if index % 4 == 3 else ForeignPicture(gpu, picture) for index, picture in enumerate(frames))
        return list(stream.run(mixed))  # type: ignore[arg-type]

    assert_alike(bench.device(use, form, rows=3, steps=3), bench.host(run(frames), steps=3))


def test_pictures_may_stay_on_the_device(bench: Bench, gpu: EmulatedGpu) -> None:
    frames = pictures(12)
    with bench.stream("split", 2, output="device") as stream:
        found = list(stream.run(frames, ahead=1))
    expected = bench.host(run(frames))
    for one, other in zip(found, expected, strict=True):
        image = gpu.memory.view(one.image.address, one.image.shape, "uint8")
        assert np.abs(image.astype(int) - other.image).max() <= 1


@pytest.mark.parametrize("at", [0, 3, 7, 8, 11])
def test_what_is_no_frame_is_refused_and_the_stream_goes_on(bench: Bench, gpu: EmulatedGpu, at: int) -> None:
    frames = pictures(13)

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = [frame for picture in frames[:at] for frame in stream(picture)]
        with pytest.raises(FrameError):
            stream(frames[0][..., :2])
        return [*finished, *stream.run(frames[at:])]

    assert_alike(bench.device(use, "split"), bench.host(run(frames)))


@on_and_off
@both_forms
@pytest.mark.parametrize("steps", [1, 3])
def test_a_tick_is_a_launch_for_each_part_and_waits_for_nothing(
    bench: Bench, gpu: EmulatedGpu, form: Form, steps: int, overlap: bool
) -> None:
    frames = pictures(16)
    with bench.stream(form, 2, steps, overlap=overlap) as stream:
        for picture in frames[:8]:
            stream(picture)
        pipeline = pipeline_of(stream)
        pending = []
        for index, picture in enumerate(frames[8:], start=8):
            gpu.works.clear()
            syncs, waits = gpu.syncs, gpu.waits
            submitted = pipeline.tick(index, picture)
            delivered = ["deliver"] if submitted.finished is not None else []
            assert gpu.works == ["fetch", *["graph"] * (5 if overlap else 1), *delivered]
            # Nobody fetches a picture: the slot is waited for that was used first.
            assert gpu.waits == waits + (index >= 8 + (5 if overlap else 3))
            assert gpu.syncs <= syncs + 1
            pending.append(submitted.pending)
        assert sum(len(one.wait()) for one in pending) == 9 - steps


@on_and_off
def test_a_tick_never_waits_if_every_picture_is_fetched(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    frames = pictures(16)
    with bench.stream("split", 2, steps=1, overlap=overlap) as stream:
        for picture in frames[:8]:
            stream(picture)
        pipeline = pipeline_of(stream)
        for index, picture in enumerate(frames[8:], start=8):
            waits = gpu.waits
            pending = pipeline.tick(index, picture).pending
            assert gpu.waits == waits
            pending.wait()
            assert gpu.waits == waits + 1


@on_and_off
@both_forms
@pytest.mark.parametrize(
    ("rows", "steps", "max_steps"), [(1, 1, None), (3, 1, None), (2, 3, None), (3, 8, None), (2, 1, 4)]
)
def test_the_estimate_is_the_allocation(
    bench: Bench, gpu: EmulatedGpu, form: Form, rows: int, steps: int, max_steps: int | None, overlap: bool
) -> None:
    with bench.stream(form, rows, steps, max_steps=max_steps, overlap=overlap) as stream:
        memory = pipeline_of(stream).parts.memory
        spec = stream.spec
        options = bench.options(form, rows, overlap=overlap)
        estimate = estimate_for(Bundle.open(bench.bundle), spec, options, room=StreamRoom(max_steps or steps))
        assert estimate is not None
        shared = dict(estimate.shared)
        assert shared.pop("weights") == 1000 * len(bench.plans[form, rows].manifest.plans)
        assert pipeline_of(stream).parts.unet.opened.memory.allocated == shared
        assert memory.allocated == estimate.own
        gpu.finish()
        before = gpu.memory.allocated
        assert 0 <= before - estimate.allocated < 20 * GRAIN_BYTES  # every allocation is rounded up to it
        list(stream.run(pictures(10)))
        gpu.finish()
        assert gpu.memory.allocated == before


@both_forms
def test_closing_frees_everything(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    stream = bench.stream(form, 2)
    for picture in pictures(11):
        stream(picture)
    stream.close()
    stream.close()
    gpu.finish()
    gc.collect()
    assert (gpu.memory.allocated, gpu.pinned.allocated) == (0, 0)


def test_pictures_on_their_way_survive_the_stream(bench: Bench, gpu: EmulatedGpu) -> None:
    frames = pictures(12)
    with bench.stream("split", 2, steps=1) as stream:
        for picture in frames[:8]:
            stream(picture)
        pipeline = pipeline_of(stream)
        pending = [pipeline.tick(index, frames[index]).pending for index in range(8, 12)]
    found = [image for one in pending for image in one.wait()]
    expected = bench.host(run(frames), steps=1)[8:]
    assert all(np.abs(a.astype(int) - b.image).max() <= 1 for a, b in zip(found, expected, strict=True))


def test_what_does_not_fit_is_refused_before_anything_is_allocated(bench: Bench, gpu: EmulatedGpu) -> None:
    gpu.total = 1 << 20
    with pytest.raises(DeviceMemoryError, match=r"64x64 with T = 2 takes 0\.\d+ GB of GPU memory"):
        bench.stream("split", 2)
    assert gpu.works == []
    assert gpu.memory.allocated == 0


def test_a_failure_while_opening_frees_everything(
    bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    class RefusalError(Live2DiffError):
        """Stands for any."""

    def refuse(*_: object) -> None:
        raise RefusalError("it fails", "Try again")

    monkeypatch.setattr("live2diff_trt.runtime.tick.Tick.capture", refuse)
    with pytest.raises(RefusalError):
        bench.stream("split", 2)
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_a_plan_that_cant_be_opened_is_told_and_everything_is_freed(
    bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stream("split", 2).close()  # the plans are measured, and the next stream opens them at once
    load_plan = EmulatedPlanRuntime.load

    def refuse_depth(self: EmulatedPlanRuntime, name: str, plan: bytes, structure: str) -> EmulatedLoadedPlan:
        if name == "depth":
            raise PlanError(f"TensorRT can't load the plan {name}", "Build the plans again")
        return load_plan(self, name, plan, structure)

    monkeypatch.setattr(EmulatedPlanRuntime, "load", refuse_depth)
    with pytest.raises(PlanError, match="can't load the plan depth"):
        bench.stream("split", 2)
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_plans_are_measured_once(bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.stream("split", 2):
        facts = bench.plans["split", 2].facts(GPU)
    assert facts.load_runtime_caches() == {"all": b"compiled"}
    assert set(facts.load_measured()["scratch_bytes"]) == set(bench.plans["split", 2].manifest.plans)

    def refuse(*_: object) -> None:
        raise AssertionError("they were measured before")

    monkeypatch.setattr("live2diff_trt.runtime.opened_plans._measure_plans", refuse)
    monkeypatch.setattr(GpuFacts, "save_runtime_caches", refuse)
    bench.stream("split", 2).close()


@pytest.mark.usefixtures("gpu")
def test_kernels_that_are_of_no_use_are_replaced(bench: Bench) -> None:
    bench.stream("split", 2).close()
    facts = bench.plans["split", 2].facts(GPU)
    facts.save_runtime_caches({"all": b"compiled on another card"})
    bench.stream("split", 2).close()
    assert facts.load_runtime_caches() == {"all": b"compiled"}
