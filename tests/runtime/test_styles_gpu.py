"""Styles by TensorRT. Run with ``pytest -m gpu`` where a GPU is; refits need a flavour that builds refittable plans."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt import Stream
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.errors import PlanBuildError
from live2diff_trt.engine.plan_manifest import MANIFEST_FILE, Form
from live2diff_trt.engine.refit import PlanRefitter
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.cuda_session import estimate_for
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.shared_engine import open_shared_engine
from live2diff_trt.runtime.stream_rows import StreamRoom
from tests.runtime.gpu_plans import build_for_gpu, form_of
from tests.runtime.test_stream_controls import both_forms
from tests.runtime.test_stream_tensorrt import differences, pictures

pytestmark = pytest.mark.gpu

MOST_APART = 4
"""Of 255 levels. TensorRT-RTX multiplies float32 as TF32, and such weights magnify that."""
RIGID = "up_blocks.1.resnets.1.conv1.weight"
hot_and_cold = pytest.mark.parametrize("hot", [False, True], ids=["in place", "hot"])


@pytest.fixture
def plans(tiny_bundle: Path, other_bundle: Path, plans_root: Path, request: pytest.FixtureRequest) -> Path:
    """Refittable plans for two rows, of the form that a test is for, or split, and plain ones of the other bundle."""
    form = form_of(request)
    try:
        build_for_gpu(tiny_bundle, plans_root, form, refittable=True)
    except PlanBuildError as error:
        pytest.skip(f"refittable plans can't be built here: {error.problem}")
    build_for_gpu(other_bundle, plans_root, form)
    return plans_root


@pytest.fixture
def rigid_plans(
    tiny_bundle: Path, other_bundle: Path, plans_root: Path, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """Plans for two rows that can't be refitted, of the form that a test is for, or split, of both bundles."""
    for bundle in (tiny_bundle, other_bundle):
        build_for_gpu(bundle, plans_root, form_of(request))
    yield plans_root
    for folder in find_styles(plans_root):
        shutil.rmtree(folder)


def find_styles(plans: Path) -> list[Path]:
    """Return the folders of plans that were built for styles."""
    return sorted(plans.rglob("*-style-*"))


def refittable(plans: Path, form: Form, hot: bool, **others: Any) -> TensorRTOptions:
    return TensorRTOptions(form=form, plans=plans, refittable=True, hot_restyle=hot, **others)


def check_there_and_back(bundle: Path, other_bundle: Path, style: Path, options: TensorRTOptions) -> None:
    """A → B → A → B: A is A, B is B, and B is what plans of the other bundle compute, but for rounding."""
    frames = pictures(20)
    with Stream.open(bundle, prompt="a red fox", options=options) as stream:
        clips = []
        for chosen in (None, style, None, style):
            stream.set_style(chosen)
            clips.append(list(stream.run(frames, ahead=stream.full_ahead)))
    assert differences(clips[0], clips[2]) == [0] * 20
    assert differences(clips[1], clips[3]) == [0] * 20
    assert min(differences(clips[0], clips[1])) > 1
    plain = TensorRTOptions(form=options.form, plans=options.plans)
    with Stream.open(other_bundle, prompt="a red fox", options=plain) as stream:
        expected = list(stream.run(frames, ahead=stream.full_ahead))
    assert max(differences(clips[1], expected)) < MOST_APART


@hot_and_cold
@both_forms
def test_there_and_back_gives_the_same_bits(
    tiny_bundle: Path, other_bundle: Path, plans: Path, ink: Path, form: Form, hot: bool
) -> None:
    check_there_and_back(tiny_bundle, other_bundle, ink, refittable(plans, form, hot))


@hot_and_cold
@both_forms
def test_so_it_does_where_nothing_can_be_refitted(
    tiny_bundle: Path, other_bundle: Path, rigid_plans: Path, ink: Path, form: Form, hot: bool
) -> None:
    """Plans are built for the style, once: another stream finds them, and gives the same bits."""
    options = TensorRTOptions(form=form, plans=rigid_plans, hot_restyle=hot)
    check_there_and_back(tiny_bundle, other_bundle, ink, options)
    (folder,) = find_styles(rigid_plans)
    written = (folder / MANIFEST_FILE).stat().st_mtime_ns
    frames = pictures(12)
    clips = []
    for _ in range(2):
        with Stream.open(tiny_bundle, prompt="a red fox", style=ink, options=options) as stream:
            clips.append(list(stream.run(frames)))
    assert differences(*clips) == [0] * 12
    assert (folder / MANIFEST_FILE).stat().st_mtime_ns == written


@hot_and_cold
@both_forms
def test_so_it_does_where_one_weight_cant_be_refitted(
    tiny_bundle: Path,
    other_bundle: Path,
    plans: Path,
    ink: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Form,
    hot: bool,
) -> None:
    """The plan that has it is built anew and runs among those that are refitted."""
    find_obstacle = PlanRefitter.find_obstacle

    def find_one(self: PlanRefitter, values: Mapping[str, Any], read: Callable[[str], Any]) -> str | None:
        return "it is rigid" if RIGID in values else find_obstacle(self, values, read)

    monkeypatch.setattr(PlanRefitter, "find_obstacle", find_one)
    check_there_and_back(tiny_bundle, other_bundle, ink, refittable(plans, form, hot))
    (folder,) = find_styles(plans)
    assert len(list(folder.glob("*.plan"))) == (1 if form == "split" else 2)  # the whole UNet is there twice
    shutil.rmtree(folder)


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
    check_frames_go_on(tiny_bundle, ink, refittable(plans, "split", hot=True))


@hot_and_cold
def test_frames_go_on_while_plans_are_built(tiny_bundle: Path, rigid_plans: Path, ink: Path, hot: bool) -> None:
    check_frames_go_on(tiny_bundle, ink, TensorRTOptions(plans=rigid_plans, hot_restyle=hot))


def check_frames_go_on(bundle: Path, style: Path, options: TensorRTOptions) -> None:
    frames = pictures(400)
    with Stream.open(bundle, prompt="a red fox", options=options) as stream:
        plain = list(stream.run(frames, ahead=stream.full_ahead))
        found: list[FinishedFrame] = []
        for index, picture in enumerate(frames):
            if index == 12:
                stream.set_style(style, wait=False)
            elif index == 380:
                preparing = stream._style._preparing
                if preparing is not None:
                    preparing.ready.result(600)
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
