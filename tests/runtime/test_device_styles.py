"""Other weights on the emulated GPU: plans, and what kernels read, hold another style as if they were built with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.runtime.cuda_session import estimate_for
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom
from tests.runtime.emulated_bench import Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache
from tests.runtime.emulated_plans import EmulatedRefitter
from tests.runtime.test_cuda_pipeline import assert_alike, pipeline_of
from tests.runtime.test_stream_controls import both_forms, give, same

on_and_off = pytest.mark.parametrize("overlap", [False, True])
hot_and_cold = pytest.mark.parametrize("hot", [False, True], ids=["in place", "hot"])


@pytest.fixture(scope="module")
def other_bench(other_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    graphs = GraphCache()
    yield Bench(other_bundle, tmp_path_factory.mktemp("other plans"), graphs)
    graphs.close()


def leave(finished: list[FinishedFrame], stream: Stream) -> list[FinishedFrame]:
    """Return what was finished, and leave the pipeline with the bundle's own weights: the bench uses it again."""
    stream.set_style(None)
    stream(pictures(1)[0])
    stream.flush()
    return finished


@hot_and_cold
@both_forms
def test_styles_change_alike_on_the_gpu(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, form: Form, hot: bool
) -> None:
    frames = pictures(29)

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:11])
        for first, style in ((11, ink), (17, few), (23, None)):
            stream.set_style(style)
            finished += give(stream, frames[first : first + 6])
        return [*finished, *stream.flush()]

    expected = bench.host(use)
    with bench.stream(form, 3, refittable=True, hot_restyle=hot, overlap=hot) as stream:
        assert_alike(use(stream), expected, most_unequal=0.01)  # such weights make rounding larger


@hot_and_cold
@both_forms
def test_a_style_is_the_other_bundles_plans_and_going_back_gives_the_first_ones(
    bench: Bench, other_bench: Bench, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch, form: Form, hot: bool
) -> None:
    """Bit by bit: A → B is what was built from B, and A → B → C → A what was built from A."""
    frames = pictures(12)
    with monkeypatch.context() as patch:
        install_emulated_gpu(patch, other_bench.graphs)
        expected = other_bench.device(run(frames), form)
    install_emulated_gpu(monkeypatch, bench.graphs)
    plain = bench.device(run(frames), form)
    with bench.stream(form, 2, refittable=True, hot_restyle=hot) as stream:
        assert all(same(list(stream.run(frames)), plain))
        stream.set_style(ink)
        assert all(same(list(stream.run(frames)), expected))
        stream.set_style(few)
        assert not any(same(list(stream.run(frames)), plain))
        stream.set_style(None)
        assert all(same(list(stream.run(frames)), plain))


@hot_and_cold
def test_kernels_read_what_the_style_says(
    bench: Bench, gpu: EmulatedGpu, ink: Path, other_bundle: Path, hot: bool
) -> None:
    other = BundleInitialisers.open(other_bundle)
    with bench.stream("split", 2, style=ink, refittable=True, hot_restyle=hot) as stream:
        parts = stream._pipeline.parts  # type: ignore[attr-defined]
        read = parts.unet.opened.constants
        assert {name.rpartition(".")[2] for name in read} >= {"pe_q", "pe_k", "pe_v", "weight", "bias"}
        for name, tensor in read.items():
            np.testing.assert_array_equal(parts.memory.download(tensor), other.read(name))


def test_only_what_differs_is_refitted(bench: Bench, gpu: EmulatedGpu, few: Path) -> None:
    with bench.stream("split", 2, refittable=True) as stream:
        give(stream, pictures(10))
        gpu.works.clear()
        stream.set_style(few)
        assert "refit" not in gpu.works
        give(stream, pictures(1))
        refits = gpu.works.count("refit")
        plans = stream._pipeline.parts.unet.plans  # type: ignore[attr-defined]
        assert 0 < refits < len(plans) / 2


@both_forms
def test_a_refit_that_fails_leaves_the_old_style(
    bench: Bench, gpu: EmulatedGpu, ink: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    """When some plans have the new weights already."""
    name = "up_blocks.1.resnets.1.conv1.weight"
    frames = pictures(16)
    expected = bench.device(run(frames), form)
    with bench.stream(form, 2, refittable=True) as stream:
        found = give(stream, frames[:11])
        with monkeypatch.context() as patch:
            patch.setattr(EmulatedRefitter, "refuses", (name,))
            stream.set_style(ink)
            with pytest.raises(PlanError, match=f"does not take {name}"):
                patch_and_give(patch, stream, frames[11])
        found += stream._deliver()
        found += stream.run(frames[11:])
        assert all(same(found, expected))


def patch_and_give(patch: pytest.MonkeyPatch, stream: Stream, frame: Image) -> None:
    """Give a frame; the plan takes its old weights back, as it would."""
    refit = EmulatedRefitter.refit

    def refit_once(self: EmulatedRefitter, *arguments: object) -> object:
        try:
            return refit(self, *arguments)  # type: ignore[arg-type]
        except PlanError:
            patch.setattr(EmulatedRefitter, "refuses", ())
            raise

    patch.setattr(EmulatedRefitter, "refit", refit_once)
    stream(frame)


@hot_and_cold
@both_forms
def test_a_style_takes_no_memory_and_leaves_none(
    bench: Bench, gpu: EmulatedGpu, ink: Path, form: Form, hot: bool
) -> None:
    with bench.stream(form, 2, refittable=True, hot_restyle=hot) as stream:
        give(stream, pictures(10))
        gpu.finish()
        before = gpu.memory.allocated
        for style in (ink, None):
            stream.set_style(style)
            give(stream, pictures(3))
        stream.flush()
        gpu.finish()
        assert gpu.memory.allocated == before
    gpu.finish()
    assert gpu.memory.allocated == 0


@on_and_off
def test_a_hot_style_is_prepared_beside_frames_on_their_way(
    bench: Bench, gpu: EmulatedGpu, ink: Path, overlap: bool
) -> None:
    """The denoise lane is given nothing but the new graphs, and frames on their way are what they would have been."""
    frames = pictures(14)
    expected = bench.device(run(frames), "split", overlap=overlap)
    with bench.stream("split", 2, refittable=True, hot_restyle=True, overlap=overlap) as stream:
        finished = give(stream, frames[:12])
        pipeline = pipeline_of(stream)
        pending = [pipeline.tick(12, frames[12]).pending]
        lanes = (pipeline.parts.lanes.enter, pipeline.parts.lanes.denoise, pipeline.parts.lanes.decode)
        before = [lane.done for lane in lanes]
        gpu.works.clear()
        stream.set_style(ink)
        assert set(gpu.works) == {"refit", "copy up", "upload"}
        assert [lane.done for lane in lanes] == before
        pending.append(pipeline.tick(None, None).pending)
        found = [*(frame.image for frame in finished), *(image for one in pending for image in one.wait())]
    assert all(np.array_equal(one, other.image) for one, other in zip(found, expected[:13], strict=True))


def test_a_hot_refit_that_fails_leaves_the_old_style_and_a_later_one_is_right(
    bench: Bench, gpu: EmulatedGpu, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pictures(16)

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:11])
        with monkeypatch.context() as patch:
            patch.setattr(EmulatedRefitter, "refuses", ("up_blocks.1.resnets.1.conv1.weight",))
            with pytest.raises(PlanError, match="does not take"):
                stream.set_style(ink)
        finished += give(stream, frames[11:13])
        stream.set_style(few)
        return [*finished, *stream.run(frames[13:])]

    def use_few_alone(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:13])
        stream.set_style(few)
        return [*finished, *stream.run(frames[13:])]

    with bench.stream("split", 2, refittable=True, hot_restyle=True) as stream:
        found = use(stream)
    with bench.stream("split", 2, refittable=True, hot_restyle=True) as stream:
        assert all(same(found, use_few_alone(stream)))


def test_steps_may_change_together_with_a_hot_style(bench: Bench, gpu: EmulatedGpu, ink: Path) -> None:
    """The tick that was captured with the style has other rows than those that follow."""
    frames = pictures(16)

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:11])
        stream.set_style(ink)
        stream.set_step_list((20, 30, 40))
        return leave([*finished, *stream.run(frames[11:])], stream)

    expected = bench.host(use)
    with bench.stream("split", 2, max_steps=3, refittable=True, hot_restyle=True) as stream:
        assert_alike(use(stream), expected, most_unequal=0.01)


@hot_and_cold
def test_the_negative_prompt_is_encoded_anew(bench: Bench, gpu: EmulatedGpu, ink: Path, hot: bool) -> None:
    frames, guidance = pictures(16), Guidance("full", 1.3, "two cats")

    def use(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:11])
        stream.set_style(ink)
        return leave([*finished, *stream.run(frames[11:])], stream)

    expected = bench.host(use, guidance=guidance)
    with bench.stream("split", 2, guidance=guidance, refittable=True, hot_restyle=hot) as stream:
        assert_alike(use(stream), expected, most_unequal=0.01)


@pytest.mark.parametrize("refittable", [False, True])
@both_forms
def test_the_spare_plans_are_in_the_estimate(bench: Bench, gpu: EmulatedGpu, form: Form, refittable: bool) -> None:
    bundle = Bundle.open(bench.bundle)
    options = bench.options(form, 2, refittable=refittable, hot_restyle=True)
    with bench.stream(form, 2, refittable=refittable, hot_restyle=True) as stream:
        parts = pipeline_of(stream).parts
        assert parts.spare is not None
        own, plans = dict(parts.memory.allocated), parts.unet.plans
        shared = [session.opened.memory.allocated for session in (parts.unet, parts.spare.unet)]
    estimate = estimate_for(bundle, bundle.spec, options, room=StreamRoom(2))
    once = estimate_for(bundle, bundle.spec, replace(options, hot_restyle=False), room=StreamRoom(2))
    assert estimate is not None
    assert once is not None
    assert own == estimate.own
    assert sum(sum(one.values()) for one in shared) == sum(estimate.shared.values()) - estimate.shared["weights"]
    assert estimate.parts["weights"] == once.parts["weights"] * (2 * len(plans) - 3) / len(plans)
