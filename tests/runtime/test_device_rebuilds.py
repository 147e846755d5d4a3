"""Styles on the emulated GPU where plans can't be refitted: others are built, and run in the place of those."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine import build as build_module
from live2diff_trt.engine.errors import PlanBuildError, PlanError
from live2diff_trt.engine.networks import find_plan_weights
from live2diff_trt.engine.plan_manifest import KEPT_PLANS, Form
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache, build_emulated_plan, read_emulated_plan
from tests.runtime.emulated_plans import EmulatedLoadedPlan, EmulatedPlan, EmulatedRefitter
from tests.runtime.test_cuda_pipeline import pipeline_of
from tests.runtime.test_stream_controls import both_forms, give, same

RIGID = ("mid_block.resnets.0.conv1.weight", "up_blocks.1.resnets.1.conv1.weight")
"""What the plans of ``some`` flavour can't exchange."""
hot_and_cold = pytest.mark.parametrize("hot", [False, True], ids=["in place", "hot"])
whatever_is_rigid = pytest.mark.parametrize("refittable", [False, True], ids=["all rigid", "some rigid"])


@dataclass(frozen=True)
class Workshop:
    """A bench whose plans can't exchange ``RIGID``, or nothing if they are not refittable.

    Attributes:
        built: names of the plans that were built for styles.
    """

    bench: Bench
    built: list[str]

    def stream(self, form: Form, *, refittable: bool, hot: bool = False, **options: Any) -> Stream:
        return self.bench.stream(form, 2, refittable=refittable, hot_restyle=hot, **options)

    def styles(self) -> list[Path]:
        """Return the folders of plans that were built for styles."""
        return sorted(self.bench.root.rglob("*-style-*"))


@pytest.fixture
def workshop(bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    for form in ("split", "whole"):
        for refittable in (False, True):
            bench.options(form, 2, refittable=refittable)  # built now, so that only styles are built in a test
    built: list[str] = []

    def build(flavour: Any, name: str, *arguments: Any) -> bytes:
        built.append(name)
        return build_emulated_plan(flavour, name, *arguments)

    monkeypatch.setattr(build_module, "build_plan", build)
    monkeypatch.setattr(EmulatedRefitter, "lacks", RIGID)
    workshop = Workshop(bench, built)
    yield workshop
    for folder in workshop.styles():
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def other_bench(other_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    graphs = GraphCache()
    yield Bench(other_bundle, tmp_path_factory.mktemp("other plans"), graphs)
    graphs.close()


def plans_of(workshop: Workshop, stream: Stream, weights: set[str]) -> set[str]:
    """Return the plans that have one of these weights."""
    key = pipeline_of(stream).parts.unet.opened.stored.manifest.key
    of_plan = find_plan_weights(Bundle.open(workshop.bench.bundle), key)
    return {name for name, own in of_plan.items() if own & weights}


@whatever_is_rigid
@hot_and_cold
@both_forms
def test_a_style_is_the_other_bundles_plans_and_going_back_gives_the_first_ones(
    workshop: Workshop,
    other_bench: Bench,
    ink: Path,
    few: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Form,
    hot: bool,
    refittable: bool,
) -> None:
    """Bit by bit: A → B is what was built from B, and A → B → C → A what was built from A, which is not built again."""
    frames, bench = pictures(12), workshop.bench
    with monkeypatch.context() as patch:
        install_emulated_gpu(patch, other_bench.graphs)
        expected = other_bench.device(run(frames), form)
    gpu = install_emulated_gpu(monkeypatch, bench.graphs)
    plain = bench.device(run(frames), form)
    with workshop.stream(form, refittable=refittable, hot=hot) as stream:
        for style, clip in ((None, plain), (ink, expected), (few, None), (None, plain), (ink, expected)):
            stream.set_style(style)
            found = list(stream.run(frames))
            assert all(same(found, clip)) if clip is not None else not any(same(found, plain))
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_only_what_differs_and_cant_be_refitted_is_built(workshop: Workshop, gpu: EmulatedGpu, few: Path) -> None:
    with workshop.stream("split", refittable=True) as stream:
        give(stream, pictures(10))
        gpu.works.clear()
        stream.set_style(few)
        give(stream, pictures(1))
        rebuilt = plans_of(workshop, stream, set(RIGID[:1]))  # the other one is not in the middle
        assert set(workshop.built) == rebuilt
        assert len(rebuilt) == len(workshop.built) == 1
        assert gpu.works.count("refit") > 1


def test_where_nothing_can_be_refitted_what_differs_is_built_alone(workshop: Workshop, few: Path, ink: Path) -> None:
    with workshop.stream("split", refittable=False) as stream:
        give(stream, pictures(10))
        stream.set_style(few)
        few_built = set(workshop.built)
        styled = set(pipeline_of(stream).parts.unet.plans) - KEPT_PLANS
        assert few_built < styled
        assert len(few_built) < len(styled) / 2
        stream.set_style(ink)
        assert set(workshop.built[len(few_built) :]) == styled
        assert len(workshop.styles()) == 2


def test_a_style_is_built_once_and_found_by_the_next_stream(workshop: Workshop, ink: Path) -> None:
    frames = pictures(12)
    clips = []
    for _ in range(2):
        with workshop.stream("split", refittable=True, style=ink) as stream:
            clips.append(list(stream.run(frames)))
    assert len(workshop.built) == len(set(workshop.built)) == 2
    assert all(same(*clips))


def test_what_was_damaged_in_the_store_is_built_again(workshop: Workshop, ink: Path) -> None:
    frames = pictures(12)
    with workshop.stream("split", refittable=True, style=ink) as stream:
        expected = list(stream.run(frames))
    (folder,) = workshop.styles()
    next(folder.glob("*.plan")).write_bytes(b"no plan")
    with workshop.stream("split", refittable=True, style=ink) as stream:
        assert all(same(list(stream.run(frames)), expected))
    assert len(workshop.built) == 4


def test_the_log_says_how_far_it_is(workshop: Workshop, ink: Path, caplog: pytest.LogCaptureFixture) -> None:
    with workshop.stream("split", refittable=False) as stream, caplog.at_level("INFO", logger="live2diff_trt"):
        stream.set_style(ink)
        give(stream, pictures(1))
    count = len(workshop.built)
    told = [record.message for record in caplog.records]
    assert any(f"{count} plans can't be refitted; the plan " in one and "not built refittable" in one for one in told)
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert f"building {count} plans, which can't be refitted; it may take minutes" in warning
    assert "`build --refittable`" in warning
    assert 5 <= sum(f"of {count} plans built in" in one for one in told) <= 10
    assert any(f": {count} plans built in" in one for one in told)
    assert any(f"0 plans refitted, {count} loaded in the place of others" in one for one in told)


@hot_and_cold
def test_a_build_that_fails_leaves_the_old_style_and_nothing_in_the_store(
    workshop: Workshop, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch, hot: bool
) -> None:
    frames = pictures(16)
    with workshop.stream("split", refittable=True, hot=hot, style=few) as stream:
        expected = list(stream.run(frames))

    def refuse(*_: object) -> bytes:
        raise PlanBuildError("TensorRT can't build it", "Report it")

    with workshop.stream("split", refittable=True, hot=hot, style=few) as stream:
        found = give(stream, frames[:11])
        with monkeypatch.context() as patch:
            patch.setattr(build_module, "build_plan", refuse)
            with pytest.raises(PlanBuildError, match="can't build it"):
                stream.set_style(ink)
        assert len(workshop.styles()) == 1  # that of the style in effect
        found += give(stream, frames[11:13])
        assert all(same([*found, *stream.run(frames[13:])], expected))
        stream.set_style(ink)
        assert not any(same(list(stream.run(frames)), expected))


@whatever_is_rigid
@both_forms
def test_plans_that_cant_be_opened_leave_the_old_style(
    workshop: Workshop, ink: Path, monkeypatch: pytest.MonkeyPatch, form: Form, refittable: bool
) -> None:
    """When others run in the place of the bundle's already: those are opened again."""
    frames = pictures(16)
    expected = workshop.bench.device(run(frames), form)
    with workshop.stream(form, refittable=refittable) as stream:
        found = give(stream, frames[:11])
        stream.set_style(ink)
        with monkeypatch.context() as patch:
            refuse_last(patch, workshop)
            with pytest.raises(PlanError, match="can't load"):
                stream(frames[11])
        found += stream._deliver()
        assert all(same([*found, *stream.run(frames[11:])], expected))


def refuse_last(patch: pytest.MonkeyPatch, workshop: Workshop) -> None:
    """Let one plan of those that were built be refused, once, after it was closed."""
    reload, name = EmulatedLoadedPlan.reload, max(workshop.built)
    refusals = [PlanError(f"TensorRT can't load the plan {name}", "Free memory")]

    def reload_or_refuse(self: EmulatedLoadedPlan, plan: bytes, contexts: Iterable[EmulatedPlan]) -> None:
        if self.name == name and refusals:
            for context in contexts:
                context.close()
            self.close()
            raise refusals.pop()
        reload(self, plan, contexts)

    patch.setattr(EmulatedLoadedPlan, "reload", reload_or_refuse)


@whatever_is_rigid
def test_a_hot_style_that_cant_be_opened_leaves_the_old_one_and_a_later_one_is_right(
    workshop: Workshop, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch, refittable: bool
) -> None:
    frames = pictures(16)

    def use(stream: Stream, *, refuse: bool) -> list[FinishedFrame]:
        finished = give(stream, frames[:11])
        if refuse:
            workshop.built.append("segment_000")
            with monkeypatch.context() as patch:
                refuse_last(patch, workshop)
                with pytest.raises(PlanError, match="can't load"):
                    stream.set_style(ink)
        finished += give(stream, frames[11:13])
        stream.set_style(few)
        return [*finished, *stream.run(frames[13:])]

    with workshop.stream("split", refittable=refittable) as stream:
        stream.set_style(ink)  # built, so that it is known which plans are
    clips = []
    for refuse in (False, True):
        with workshop.stream("split", refittable=refittable, hot=True) as stream:
            clips.append(use(stream, refuse=refuse))
    assert all(same(*clips))


def test_a_hot_style_that_is_set_again_after_its_refit_failed_is_right(
    workshop: Workshop, ink: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When plans that were built for it are loaded already, and never ran."""
    frames = pictures(14)
    clips = []
    for refuse in (False, True):
        with workshop.stream("split", refittable=True, hot=True) as stream:
            found = give(stream, frames[:11])
            if refuse:
                with monkeypatch.context() as patch:
                    patch.setattr(EmulatedRefitter, "refuses", ("down_blocks.0.resnets.0.conv1.weight",))
                    with pytest.raises(PlanError, match="does not take"):
                        stream.set_style(ink)
            stream.set_style(ink)
            clips.append([*found, *stream.run(frames[11:])])
    assert all(same(*clips))


@pytest.fixture
def held(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """Set when the first plan is being built; no plan is finished before the other one is set."""
    begun, go_on = Event(), Event()
    build = vars(build_module)["build_plan"]

    def build_late(*arguments: Any) -> bytes:
        begun.set()
        assert go_on.wait(60)
        return build(*arguments)

    monkeypatch.setattr(build_module, "build_plan", build_late)
    yield begun, go_on
    go_on.set()


@hot_and_cold
def test_frames_go_on_while_plans_are_built(
    workshop: Workshop, ink: Path, held: tuple[Event, Event], hot: bool
) -> None:
    frames, (begun, go_on) = pictures(16), held
    expected = workshop.bench.device(run(frames), "split")
    with workshop.stream("split", refittable=True, hot=hot) as stream:
        found = give(stream, frames[:9])
        stream.set_style(ink, wait=False)
        assert begun.wait(60)
        found += give(stream, frames[9:13])
        assert all(same(found, expected[: len(found)]))
        go_on.set()
        preparing = stream._style._preparing
        assert preparing is not None
        preparing.ready.result(60)
        found += stream.run(frames[13:])
    assert [frame.index for frame in found] == list(range(16))
    assert same(found, expected) == [True] * 13 + [False] * 3


@pytest.mark.parametrize("how", ["closed", "back", "another"])
def test_a_style_that_is_not_wanted_any_more_is_not_built_to_its_end(
    workshop: Workshop, ink: Path, few: Path, held: tuple[Event, Event], how: str
) -> None:
    begun, go_on = held
    frames = pictures(12)
    with workshop.stream("split", refittable=False) as stream:
        give(stream, frames[:9])
        stream.set_style(ink, wait=False)
        preparing = stream._style._preparing
        assert preparing is not None
        assert begun.wait(60)
        if how == "back":
            stream.set_style(None)
        elif how == "another":
            stream.set_style(few, wait=False)
        else:
            stream._style._drop()  # as closing does, which then waits
        go_on.set()
        with pytest.raises(ControlError, match="is not wanted any more"):
            preparing.ready.result(60)
        give(stream, frames[9:])
    assert not any(ink_plans(folder) for folder in workshop.styles())


def ink_plans(folder: Path) -> bool:
    """Return whether these are the plans of the style that changes everything."""
    return (folder / "text_encoder.plan").exists()


@whatever_is_rigid
def test_a_hot_style_that_was_set_back_before_a_frame_came_can_be_set_again(
    workshop: Workshop, ink: Path, refittable: bool
) -> None:
    """Its plans are open then, and never ran."""
    frames = pictures(12)
    with workshop.stream("split", refittable=refittable, style=ink) as stream:
        expected = list(stream.run(frames))
    with workshop.stream("split", refittable=refittable, hot=True) as stream:
        for style in (ink, None, ink):
            stream.set_style(style)
        assert all(same(list(stream.run(frames)), expected))


@hot_and_cold
def test_a_plan_that_wants_more_scratch_memory_is_given_its_own(
    workshop: Workshop, ink: Path, monkeypatch: pytest.MonkeyPatch, hot: bool
) -> None:
    frames = pictures(12)
    with workshop.stream("split", refittable=True, style=ink, hot=hot) as stream:
        expected = list(stream.run(frames))
        usual = pipeline_of(stream).parts.memory.allocated["scratch"]
    greedy, hold = max(workshop.built), EmulatedLoadedPlan.hold

    def hold_greedily(self: EmulatedLoadedPlan, plan: bytes) -> None:
        hold(self, plan)
        _, built_with, _ = read_emulated_plan(plan)
        if built_with and self.name == greedy:
            self.scratch_bytes = 100_000

    monkeypatch.setattr(EmulatedLoadedPlan, "hold", hold_greedily)
    with workshop.stream("split", refittable=True, style=ink, hot=hot) as stream:
        assert all(same(list(stream.run(frames)), expected))
        assert own_scratch(stream) == 100_000
        stream.set_style(None)
        stream(frames[0])
        stream.flush()
        stream.set_style(ink)
        assert all(same(list(stream.run(frames)), expected))
        assert own_scratch(stream) <= 100_000 * (1 + hot)
        assert pipeline_of(stream).parts.memory.allocated["scratch"] == usual


def own_scratch(stream: Stream) -> int:
    """Return bytes of scratch memory that plans do not share with others of their lane."""
    parts = pipeline_of(stream).parts
    sessions = [parts.unet] if parts.spare is None else [parts.unet, parts.spare.unet]
    return sum(session.opened.memory.allocated.get("scratch", 0) for session in sessions)
