"""Styles by TensorRT. Run with ``pytest -m gpu`` where a GPU is, and a flavour that can build refittable plans."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt import Stream
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.build import BuildOptions, build_plans
from live2diff_trt.engine.errors import PlanBuildError
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import PlanStore
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.cuda_session import estimate_for, require_gpu
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.shared_engine import open_shared_engine
from live2diff_trt.runtime.stream_rows import StreamRoom
from tests.runtime.test_stream_tensorrt import differences, form_of, pictures

pytestmark = pytest.mark.gpu

MOST_APART = 4
"""Of 255 levels. TensorRT-RTX multiplies float32 as TF32, and such weights magnify that."""
both_forms = pytest.mark.parametrize("form", ["split", "whole"])
hot_and_cold = pytest.mark.parametrize("hot", [False, True], ids=["in place", "hot"])


@pytest.fixture(scope="module")
def plans_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture
def plans(tiny_bundle: Path, other_bundle: Path, plans_root: Path, request: pytest.FixtureRequest) -> Path:
    """Refittable plans for two rows, of the form that a test is for, or split, and plain ones of the other bundle."""
    form = form_of(request)
    gpu = require_gpu(0).compute_capability
    flavour, _ = choose_flavour("auto", gpu)
    options = BuildOptions(gpu, gpu, form, rows=2)
    try:
        build_plans(Bundle.open(tiny_bundle), flavour, PlanStore(plans_root), replace(options, refittable=True))
    except PlanBuildError as error:
        pytest.skip(f"{flavour.name} {flavour.version} can't build refittable plans here: {error.problem}")
    build_plans(Bundle.open(other_bundle), flavour, PlanStore(plans_root), options)
    return plans_root


def refittable(plans: Path, form: Form, hot: bool, **others: Any) -> TensorRTOptions:
    return TensorRTOptions(form=form, plans=plans, refittable=True, hot_restyle=hot, **others)


@hot_and_cold
@both_forms
def test_there_and_back_gives_the_same_bits(
    tiny_bundle: Path, other_bundle: Path, plans: Path, ink: Path, form: Form, hot: bool
) -> None:
    """A → B → A → B: A is A, B is B, and B is what plans of the other bundle compute, but for rounding."""
    frames = pictures(20)
    with Stream.open(tiny_bundle, prompt="a red fox", options=refittable(plans, form, hot)) as stream:
        clips = []
        for style in (None, ink, None, ink):
            stream.set_style(style)
            clips.append(list(stream.run(frames, ahead=stream.full_ahead)))
    assert differences(clips[0], clips[2]) == [0] * 20
    assert differences(clips[1], clips[3]) == [0] * 20
    assert min(differences(clips[0], clips[1])) > 1
    with Stream.open(other_bundle, prompt="a red fox", options=TensorRTOptions(form=form, plans=plans)) as stream:
        expected = list(stream.run(frames, ahead=stream.full_ahead))
    assert max(differences(clips[1], expected)) < MOST_APART


@hot_and_cold
@both_forms
def test_styles_change_in_mid_stream_as_on_the_cpu(
    tiny_bundle: Path, plans: Path, ink: Path, form: Form, hot: bool
) -> None:
    frames = pictures(30)

    def stream_with(options: Any) -> list[FinishedFrame]:
        with Stream.open(tiny_bundle, prompt="a red fox", options=options) as stream:

            def change_styles() -> Iterator[Image]:
                for index, picture in enumerate(frames):
                    if index == 11:
                        stream.set_style(ink)
                    elif index == 20:
                        stream.set_style(None)
                    yield picture

            return list(stream.run(change_styles(), ahead=stream.full_ahead))

    on_gpu = stream_with(refittable(plans, form, hot))
    assert [frame.index for frame in on_gpu] == list(range(30))
    assert max(differences(on_gpu, stream_with(None))) < MOST_APART


def test_frames_go_on_while_a_hot_style_is_prepared(tiny_bundle: Path, plans: Path, ink: Path) -> None:
    """In another thread, which refits and captures; what comes before it is ready is what would have come anyhow."""
    frames = pictures(400)
    with Stream.open(tiny_bundle, prompt="a red fox", options=refittable(plans, "split", hot=True)) as stream:
        plain = list(stream.run(frames, ahead=stream.full_ahead))
        found: list[FinishedFrame] = []
        for index, picture in enumerate(frames):
            if index == 12:
                stream.set_style(ink, wait=False)
            found += stream(picture)
        found += stream.flush()
    assert [frame.index for frame in found] == list(range(400))
    changed = [difference > 0 for difference in differences(found, plain)]
    assert not any(changed[:12])
    assert changed[-1]
    assert changed == sorted(changed)


@both_forms
def test_the_spare_plans_are_in_the_estimate(tiny_bundle: Path, plans: Path, form: Form) -> None:
    options = refittable(plans, form, hot=True)
    bundle = Bundle.open(tiny_bundle)
    with Stream.open(tiny_bundle, options=options) as stream:
        estimate = estimate_for(bundle, bundle.spec, options, room=StreamRoom(bundle.spec.steps))
        parts = stream._pipeline.parts  # type: ignore[attr-defined]
        own = dict(parts.memory.allocated)
        shared = [session.opened.memory.allocated for session in (parts.unet, parts.spare.unet)]
    assert estimate is not None
    assert own == estimate.own
    assert sum(sum(one.values()) for one in shared) == sum(estimate.shared.values()) - estimate.shared["weights"]


def restyle(stream: Stream, styles: list[Any], frames: list[Image]) -> list[FinishedFrame]:
    """Stream four frames under each style, behind eleven under the stream's first one."""
    finished = [frame for picture in frames[:11] for frame in stream(picture)]
    for index, style in enumerate(styles):
        stream.set_style(style)
        finished += [frame for picture in frames[11 + 4 * index : 15 + 4 * index] for frame in stream(picture)]
    return [*finished, *stream.flush()]


@both_forms
@pytest.mark.parametrize("overlap", [False, True], ids=["one stream", "overlap"])
def test_streams_of_a_shared_engine_take_styles_by_name(
    tiny_bundle: Path, plans: Path, ink: Path, few: Path, form: Form, overlap: bool
) -> None:
    """Each is what it is on plans of its own, bit by bit, while a neighbour has another style, and in threads."""
    frames, order = pictures(23), ["ink", None, "a few"]
    options = refittable(plans, form, hot=False, overlap=overlap)
    with Stream.open(tiny_bundle, prompt="a red fox", options=options) as stream:
        expected = restyle(stream, [ink, None, few], frames)
    with Stream.open(tiny_bundle, prompt="a red fox", options=options) as stream:
        plain = list(stream.run(frames))
    styles = {"ink": ink, "a few": few}
    with closing(open_shared_engine(tiny_bundle, options, max_steps=2, styles=styles)) as engine:
        with engine.open_stream("a red fox", 0) as one, engine.open_stream("a red fox", 0) as other:
            before = [frame for picture in frames[:14] for frame in other(picture)]
            assert differences(restyle(one, order, frames), expected) == [0] * 23
            assert differences([*before, *other.run(frames[14:])], plain) == [0] * 23

        def use(_: int) -> list[float]:
            with engine.open_stream("a red fox", 0) as stream:
                return differences(restyle(stream, order, frames), expected)

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(use, range(6))) == [[0] * 23] * 6
