"""Streams on plans that they share, on the emulated GPU: each is what it would be alone, and weights are there once."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.engine.errors import BackendError, PlanError
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.engine.plan_manifest import KEPT_PLANS, Form
from live2diff_trt.engine.restyle import StyledWeights, fit_style, read_style
from live2diff_trt.runtime.errors import ControlError, DeviceMemoryError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.shared_engine import SharedEngine, open_shared_engine
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import PROMPT, STEP_LISTS, Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import GPU
from tests.runtime.emulated_graphs import read_emulated_plan
from tests.runtime.emulated_plans import EmulatedLoadedPlan, EmulatedPlan, EmulatedPlanRuntime
from tests.runtime.test_cuda_pipeline import GRAIN_BYTES, pipeline_of
from tests.runtime.test_stream_controls import both_forms, same

on_and_off = pytest.mark.parametrize("overlap", [False, True])


def open_engine(
    bench: Bench, form: Form = "split", *, max_steps: int = 2, styles: Mapping[str, Path] | None = None, **options: Any
) -> SharedEngine:
    options = {"overlap": False, "refittable": styles is not None, **options}
    chosen = bench.options(form, 2, **options)
    return open_shared_engine(bench.bundle, chosen, step_list=STEP_LISTS[2], max_steps=max_steps, styles=styles)


@pytest.fixture
def engine(bench: Bench, gpu: EmulatedGpu) -> Iterator[SharedEngine]:
    with closing(open_engine(bench)) as engine:
        yield engine


def frames_of(seed: int, count: int = 12) -> list[Image]:
    return [picture if seed % 2 else 255 - picture for picture in pictures(count)]


def take_turns(streams: list[Stream], frames: list[list[Image]]) -> list[list[FinishedFrame]]:
    """Give each stream a frame in turn, then let the first one finish first."""
    finished: list[list[FinishedFrame]] = [[] for _ in streams]
    for pictures_at_once in zip(*frames, strict=True):
        for found, stream, picture in zip(finished, streams, pictures_at_once, strict=True):
            found.extend(stream(picture))
    for found, stream in zip(finished, streams, strict=True):
        found.extend(stream.flush())
    return finished


@on_and_off
@both_forms
def test_streams_in_turn_are_what_they_are_alone(bench: Bench, gpu: EmulatedGpu, form: Form, overlap: bool) -> None:
    expected = [bench.device(run(frames_of(seed)), form, seed=seed, overlap=overlap) for seed in range(3)]
    with closing(open_engine(bench, form, overlap=overlap)) as engine:
        streams = [engine.open_stream(PROMPT, seed) for seed in range(3)]
        found = take_turns(streams, [frames_of(seed) for seed in range(3)])
        for stream in streams:
            stream.close()
    for one, other in zip(found, expected, strict=True):
        assert all(same(one, other))


def test_each_stream_has_its_own_prompt_and_steps(bench: Bench, gpu: EmulatedGpu) -> None:
    frames = pictures(16)

    def change(stream: Stream) -> list[FinishedFrame]:
        finished = [frame for picture in frames[:10] for frame in stream(picture)]
        stream.set_prompt("two cats")
        stream.set_step_list(STEP_LISTS[3])
        return [*finished, *stream.run(frames[10:])]

    plain = bench.device(run(frames), "split")
    changed = bench.device(change, "split", max_steps=3)
    with (
        closing(open_engine(bench, max_steps=3)) as engine,
        engine.open_stream(PROMPT, 0) as one,
        engine.open_stream(PROMPT, 0) as other,
    ):
        first_half = [frame for picture in frames[:12] for frame in one(picture)]
        assert all(same(change(other), changed))
        assert all(same([*first_half, *one.run(frames[12:])], plain))


@both_forms
def test_threads_open_run_and_close_streams_at_once(bench: Bench, gpu: EmulatedGpu, form: Form) -> None:
    expected = [bench.device(run(frames_of(seed)), form, seed=seed) for seed in range(2)]
    with closing(open_engine(bench, form)) as engine:

        def use(seed: int) -> list[list[FinishedFrame]]:
            found = []
            for _ in range(2):
                with engine.open_stream(PROMPT, seed) as stream:
                    found.append(list(stream.run(frames_of(seed))))
            return found

        with ThreadPoolExecutor(4) as pool:
            runs = list(pool.map(use, (0, 1, 0, 1)))
    for found, other in zip(runs, (*expected, *expected), strict=True):
        assert all(all(same(one, other)) for one in found)
    gpu.finish()
    gc.collect()
    assert (gpu.memory.allocated, gpu.pinned.allocated) == (0, 0)


def test_plans_are_loaded_once(bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stream("split", 2).close()  # now they are measured
    loaded: list[str] = []
    load = EmulatedPlanRuntime.load

    def note(self: EmulatedPlanRuntime, name: str, plan: bytes, structure: str) -> EmulatedLoadedPlan:
        loaded.append(name)
        return load(self, name, plan, structure)

    monkeypatch.setattr(EmulatedPlanRuntime, "load", note)
    with closing(open_engine(bench)) as engine:
        for seed in range(3):
            engine.open_stream("", seed).close()
    assert sorted(loaded) == sorted(bench.plans["split", 2].manifest.plans)


def test_plans_stay_until_the_last_stream_is_closed(bench: Bench, gpu: EmulatedGpu) -> None:
    frames = pictures(12)
    expected = bench.device(run(frames), "split")
    engine = open_engine(bench)
    one, other = engine.open_stream(PROMPT, 0), engine.open_stream(PROMPT, 0)
    engine.close()
    engine.close()
    one.close()
    assert all(same(list(other.run(frames)), expected))
    other.close()
    other.close()
    gpu.finish()
    assert gpu.memory.allocated == 0


@on_and_off
@both_forms
def test_a_stream_takes_what_was_estimated_and_gives_it_back(
    bench: Bench, gpu: EmulatedGpu, form: Form, overlap: bool
) -> None:
    with closing(open_engine(bench, form, max_steps=4, overlap=overlap)) as engine:
        sizes = []
        with engine.open_stream("", 0), engine.open_stream("", 1) as second:
            for _ in range(2):
                gpu.finish()
                before = engine.free_bytes()
                with engine.open_stream("", 2) as third:
                    assert sum(pipeline_of(third).parts.memory.allocated.values()) == engine.stream_bytes
                    gpu.finish()
                    sizes.append(before - engine.free_bytes())
                gpu.finish()
                assert engine.free_bytes() == before
            assert pipeline_of(second).parts.unet.opened is pipeline_of(third).parts.unet.opened
    assert all(0 <= size - engine.stream_bytes < 20 * GRAIN_BYTES for size in sizes)


def test_memory_is_asked_for_one_more_stream_alone(engine: SharedEngine, gpu: EmulatedGpu) -> None:
    with engine.open_stream("", 0):
        gpu.finish()
        gpu.total = gpu.memory.allocated + engine.stream_bytes - 1
        with pytest.raises(DeviceMemoryError, match=r"takes 0\.\d+ GB of GPU memory"):
            engine.open_stream("", 0)
        gpu.total += 1
        engine.open_stream("", 0).close()


def test_an_engine_that_does_not_fit_is_refused_before_anything_is_loaded(bench: Bench, gpu: EmulatedGpu) -> None:
    bench.stream("split", 2).close()
    gpu.finish()
    gpu.works.clear()
    gpu.total = 1 << 20
    with pytest.raises(DeviceMemoryError):
        open_engine(bench)
    assert gpu.works == []
    assert gpu.memory.allocated == 0


@pytest.mark.parametrize("failing", ["context", "capture"])
def test_a_stream_that_fails_to_open_leaves_the_others_alone(
    bench: Bench, gpu: EmulatedGpu, engine: SharedEngine, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    frames = pictures(14)
    expected = bench.device(run(frames), "split")
    open_context = EmulatedLoadedPlan.open

    def refuse(*_: object) -> None:
        raise PlanError("it fails", "Try again")

    def refuse_depth(plan: EmulatedLoadedPlan) -> EmulatedPlan:
        return open_context(plan) if plan.name != "depth" else refuse()  # type: ignore[return-value,func-returns-value]

    with engine.open_stream(PROMPT, 0) as stream:
        found = [frame for picture in frames[:10] for frame in stream(picture)]
        gpu.finish()
        before = gpu.memory.allocated
        with monkeypatch.context() as patch:
            if failing == "context":
                patch.setattr(EmulatedLoadedPlan, "open", refuse_depth)
            else:
                patch.setattr("live2diff_trt.runtime.tick.Tick.capture", refuse)
            with pytest.raises(PlanError, match="it fails"):
                engine.open_stream(PROMPT, 0)
        gpu.finish()
        assert gpu.memory.allocated == before
        with pytest.raises(ControlError):
            engine.open_stream(7, 0)  # type: ignore[arg-type]
        found += stream.run(frames[10:])
    assert all(same(found, expected))


def test_an_engine_that_fails_to_open_frees_everything(
    bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PlanError("it fails", "Try again")

    monkeypatch.setattr("live2diff_trt.runtime.tick.Tick.capture", refuse)
    with pytest.raises(PlanError):
        open_engine(bench)
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_weights_that_streams_share_are_fixed(bench: Bench, gpu: EmulatedGpu, ink: Path) -> None:
    base = BundleInitialisers.open(bench.bundle)
    weights = StyledWeights(base, fit_style(base, read_style(ink)))
    with (
        closing(open_engine(bench, refittable=True)) as engine,
        engine.open_stream("", 0) as stream,
    ):
        with pytest.raises(ControlError, match="other streams run these plans"):
            pipeline_of(stream).parts.unet.opened.weights.prepare(weights)
        with pytest.raises(ControlError, match="there is no style"):
            stream.set_style(ink)
    with bench.stream("split", 2, refittable=True) as stream:
        stream.set_style(ink)  # its plans are its own


def test_shared_plans_are_not_there_twice(bench: Bench, gpu: EmulatedGpu) -> None:
    with pytest.raises(BackendError, match="hot_restyle"):
        open_engine(bench, refittable=True, hot_restyle=True)


def restyle(stream: Stream, styles: list[object], frames: list[Image]) -> list[FinishedFrame]:
    """Stream four frames under each style, behind eleven under the stream's first one."""
    finished = [frame for picture in frames[:11] for frame in stream(picture)]
    for index, style in enumerate(styles):
        stream.set_style(style)  # type: ignore[arg-type]
        finished += [frame for picture in frames[11 + 4 * index : 15 + 4 * index] for frame in stream(picture)]
    return [*finished, *stream.flush()]


@on_and_off
@both_forms
def test_a_style_is_its_streams_alone(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, form: Form, overlap: bool
) -> None:
    """Each is what it is on plans of its own, bit by bit, while a neighbour has another style."""
    frames = pictures(23)
    with bench.stream(form, 2, refittable=True, overlap=overlap) as stream:
        expected = restyle(stream, [ink, None, few], frames)
    plain = bench.device(run(frames), form, refittable=True, overlap=overlap)
    with (
        closing(open_engine(bench, form, styles={"ink": ink, "a few": few}, overlap=overlap)) as engine,
        engine.open_stream(PROMPT, 0) as one,
        engine.open_stream(PROMPT, 0) as other,
    ):
        assert engine.styles == ("ink", "a few")
        before = [frame for picture in frames[:14] for frame in other(picture)]
        assert all(same(restyle(one, ["ink", None, "a few"], frames), expected))
        assert (one.style, other.style) == ("a few", None)
        assert all(same([*before, *other.run(frames[14:])], plain))
        assert all(same(restyle(other, ["ink", None, "a few"], frames), expected))
    gpu.finish()
    gc.collect()
    assert (gpu.memory.allocated, gpu.pinned.allocated) == (0, 0)


def test_styles_are_loaded_once_and_take_no_more_memory(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = EmulatedPlanRuntime.load

    def note(self: EmulatedPlanRuntime, name: str, plan: bytes, structure: str) -> EmulatedLoadedPlan:
        loaded.append(name)
        return load(self, name, plan, structure)

    with closing(open_engine(bench, refittable=True)) as engine:
        plain_bytes = engine.stream_bytes
    monkeypatch.setattr(EmulatedPlanRuntime, "load", note)
    with closing(open_engine(bench, styles={"ink": ink, "few": few})) as engine:
        assert engine.stream_bytes == plain_bytes
        with engine.open_stream("", 0) as one, engine.open_stream("", 1) as other:
            gpu.finish()
            before = gpu.memory.allocated
            gpu.works.clear()
            for stream in (one, other):
                restyle(stream, ["ink", "few"], pictures(19))
            gpu.finish()
            assert gpu.memory.allocated == before
            assert "refit" not in gpu.works
    counts = {name: loaded.count(name) for name in loaded}
    assert {name for name, count in counts.items() if count == 1} == KEPT_PLANS
    assert set(counts.values()) == {1, 3}


def test_the_memory_of_styles_is_asked_for(bench: Bench, gpu: EmulatedGpu, ink: Path) -> None:
    """One byte too little for the weights of a style, and nothing was loaded."""
    with closing(open_engine(bench, styles={"ink": ink})) as engine, engine.open_stream("", 0):
        gpu.finish()
        needed = gpu.memory.allocated
    gpu.finish()
    gpu.total = needed - 100 * GRAIN_BYTES
    gpu.works.clear()
    with pytest.raises(DeviceMemoryError):
        open_engine(bench, styles={"ink": ink})
    assert gpu.works == []
    open_engine(bench, refittable=True).close()


def test_a_style_that_can_not_be_had_leaves_the_one_in_effect(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was wanted before and waits for its frame goes, unless the engine has none of that name."""
    frames = pictures(19)
    with bench.stream("split", 2, refittable=True) as stream:
        expected = restyle(stream, [None, ink], frames)

    def refuse(_: EmulatedLoadedPlan) -> EmulatedPlan:
        raise PlanError("it fails", "Try again")

    with (
        closing(open_engine(bench, styles={"ink": ink, "few": few})) as engine,
        engine.open_stream(PROMPT, 0) as stream,
    ):
        found = [frame for picture in frames[:11] for frame in stream(picture)]
        stream.set_style("ink")
        with monkeypatch.context() as patch:
            patch.setattr(EmulatedLoadedPlan, "open", refuse)
            with pytest.raises(PlanError, match="it fails"):
                stream.set_style("few")
        found += [frame for picture in frames[11:15] for frame in stream(picture)]
        stream.set_style("ink")
        with pytest.raises(ControlError, match="Choose from ink, few"):
            stream.set_style("fewer")
        found += stream.run(frames[15:])
        assert all(same(found, expected))
        stream.set_style("few")  # and is never taken


def test_a_stream_that_outlives_its_engine_keeps_its_style(bench: Bench, gpu: EmulatedGpu, ink: Path) -> None:
    frames = pictures(15)
    with bench.stream("split", 2, refittable=True) as stream:
        expected = restyle(stream, [ink], frames)
    engine = open_engine(bench, styles={"ink": ink})
    stream = engine.open_stream(PROMPT, 0)
    found = [frame for picture in frames[:11] for frame in stream(picture)]
    stream.set_style("ink")
    engine.close()
    found += stream.run(frames[11:])
    assert all(same(found, expected))
    stream.close()
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_threads_restyle_their_streams_at_once(bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path) -> None:
    frames, orders = pictures(19), (["ink", "few"], ["few", None], [None, "ink"])
    files: dict[object, Path | None] = {"ink": ink, "few": few, None: None}
    expected = []
    for order in orders:
        with bench.stream("split", 2, refittable=True) as stream:
            expected.append(restyle(stream, [files[name] for name in order], frames))
    with closing(open_engine(bench, styles={"ink": ink, "few": few})) as engine:

        def use(order: list[object]) -> list[FinishedFrame]:
            with engine.open_stream(PROMPT, 0) as stream:
                return restyle(stream, order, frames)

        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(use, orders))
    for one, other in zip(found, expected, strict=True):
        assert all(same(one, other))


def test_an_engine_that_was_closed_opens_no_stream(bench: Bench, gpu: EmulatedGpu) -> None:
    engine = open_engine(bench)
    engine.close()
    with pytest.raises(PlanError, match="these plans were closed"):
        engine.open_stream("", 0)
    gpu.finish()
    assert gpu.memory.allocated == 0


@both_forms
def test_styles_are_built_where_plans_can_not_be_refitted(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, tmp_path: Path, form: Form
) -> None:
    """Each is what it is on plans of its own, bit by bit, while a neighbour has another style."""
    own = Bench(bench.bundle, tmp_path, bench.graphs)
    frames = pictures(23)
    with own.stream(form, 2, overlap=False) as stream:
        expected = restyle(stream, [ink, None, few], frames)
    plain = own.device(run(frames), form, overlap=False)
    with (
        closing(open_engine(own, form, styles={"ink": ink, "a few": few}, refittable=False)) as engine,
        engine.open_stream(PROMPT, 0) as one,
        engine.open_stream(PROMPT, 0) as other,
    ):
        before = [frame for picture in frames[:14] for frame in other(picture)]
        assert all(same(restyle(one, ["ink", None, "a few"], frames), expected))
        assert all(same([*before, *other.run(frames[14:])], plain))
    gpu.finish()
    gc.collect()
    assert gpu.memory.allocated == 0


def test_a_style_whose_plan_wants_more_scratch_memory_is_given_its_own_while_it_is_there(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Bench(bench.bundle, tmp_path, bench.graphs)
    frames = pictures(23)
    order: list[object] = ["ink", "a few", None]
    with own.stream("split", 2, overlap=False) as stream:
        expected = restyle(stream, [ink, few, None], frames)
    hold, greedy = EmulatedLoadedPlan.hold, 100_000

    def hold_greedily(self: EmulatedLoadedPlan, plan: bytes) -> None:
        hold(self, plan)
        _, built_with, _ = read_emulated_plan(plan)
        if built_with and self.name == "depth_embed":
            self.scratch_bytes = greedy

    monkeypatch.setattr(EmulatedLoadedPlan, "hold", hold_greedily)
    styles = {"ink": ink, "a few": few}
    with (
        closing(open_engine(own, styles=styles, refittable=False)) as engine,
        engine.open_stream(PROMPT, 0) as stream,
    ):
        gpu.finish()
        before = gpu.memory.allocated
        assert all(same(restyle(stream, order, frames), expected))
        gpu.finish()
        assert gpu.memory.allocated == before
        stream.set_style("ink")
        gpu.finish()
        assert gpu.memory.allocated >= before + greedy


def test_the_overhead_is_what_neither_plans_nor_streams_allocated(
    bench: Bench, gpu: EmulatedGpu, tmp_path: Path
) -> None:
    own = Bench(bench.bundle, tmp_path, bench.graphs)
    with closing(open_engine(own)) as engine:
        engine.open_stream("", 0).close()
    measured = own.plans["split", 2].facts(GPU).load_measured()
    assert 0 <= measured["overhead_bytes"] < 20 * GRAIN_BYTES + 1000 * len(measured["weight_bytes"])
    assert set(measured) == {"scratch_bytes", "weight_bytes", "overhead_bytes"}
