"""The stream by TensorRT. Run with ``pytest -m gpu`` where a GPU and a flavour of TensorRT are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live2diff_trt import Guidance, Stream, Transition
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime import tick
from live2diff_trt.runtime.cuda_session import estimate_for
from live2diff_trt.runtime.errors import DeviceMemoryError, FrameError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.guidance import GuidanceKind
from live2diff_trt.runtime.paced_run import PacedRun
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.stream_rows import StreamRoom
from tests.runtime.made_up_ends import KeepingSink
from tests.runtime.test_tick_graphs import EnqueuedWork

pytestmark = pytest.mark.gpu

STEP_LISTS = [(30,), (30, 40), (20, 30, 40), (0, 16, 32, 45)]
on_and_off = pytest.mark.parametrize("overlap", [False, True], ids=["one stream", "overlap"])


def pictures(count: int, size: tuple[int, int] = (60, 80)) -> list[Image]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


def finish(bundle: Path, options: Any, frames: list[Any], **others: Any) -> list[FinishedFrame]:
    with Stream.open(bundle, prompt="a red fox", options=options, **others) as stream:
        return list(stream.run(frames, ahead=stream.full_ahead))


def differences(found: list[FinishedFrame], wanted: list[FinishedFrame]) -> list[float]:
    return [float(np.abs(a.image.astype(int) - b.image.astype(int)).mean()) for a, b in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("step_list", STEP_LISTS)
@pytest.mark.parametrize("form", ["split", "whole"])
def test_plans_for_two_rows_stream_any_number_of_steps_as_the_cpu_does(
    tiny_bundle: Path, plans: Path, form: Form, step_list: tuple[int, ...]
) -> None:
    frames = pictures(20)
    on_cpu = finish(tiny_bundle, None, frames, step_list=step_list)
    on_gpu = finish(tiny_bundle, TensorRTOptions(form=form, plans=plans), frames, step_list=step_list)
    assert [frame.index for frame in on_gpu] == list(range(20))
    # Of 255 levels. TensorRT-RTX multiplies float32 as TF32, and every further step magnifies that a little.
    assert max(differences(on_gpu, on_cpu)) < (1.5 if len(step_list) < 4 else 4)


@pytest.mark.parametrize("step_list", STEP_LISTS)
@pytest.mark.parametrize("form", ["split", "whole"])
def test_overlap_does_not_change_a_bit(tiny_bundle: Path, plans: Path, form: Form, step_list: tuple[int, ...]) -> None:
    frames = [*pictures(40), *pictures(20, (480, 640))]
    one, other = (
        finish(tiny_bundle, TensorRTOptions(form=form, plans=plans, overlap=overlap), frames, step_list=step_list)
        for overlap in (False, True)
    )
    assert differences(one, other) == [0] * 60


@on_and_off
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 500])
def test_every_frame_comes_out_once_and_in_order(tiny_bundle: Path, plans: Path, count: int, overlap: bool) -> None:
    finished = finish(tiny_bundle, TensorRTOptions(plans=plans, overlap=overlap), pictures(count))
    assert [frame.index for frame in finished] == list(range(count))
    assert [frame.time for frame in finished] == [Fraction(index, 25) for index in range(count)]


@on_and_off
def test_a_second_clip_through_the_same_stream_repeats_the_first(tiny_bundle: Path, plans: Path, overlap: bool) -> None:
    with Stream.open(tiny_bundle, options=TensorRTOptions(plans=plans, overlap=overlap)) as stream:
        first, second = list(stream.run(pictures(13))), list(stream.run(pictures(13), ahead=stream.full_ahead))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_frames_may_change_their_size(tiny_bundle: Path, plans: Path) -> None:
    frames = [*pictures(10), *pictures(3, (480, 640)), *pictures(2, (2160, 3840)), *pictures(4, (64, 64))]
    on_cpu, on_gpu = finish(tiny_bundle, None, frames), finish(tiny_bundle, TensorRTOptions(plans=plans), frames)
    assert max(differences(on_gpu, on_cpu)) < 1.5


@on_and_off
@pytest.mark.parametrize("form", ["split", "whole"])
@pytest.mark.parametrize(
    ("guidance", "step_list"),
    [
        (Guidance("self", 1.1, delta=0.8), (30, 40)),
        (Guidance("initialize", 1.1, "two cats", 0.8), (20, 30, 40)),
        *((Guidance("full", 1.1, "two cats"), steps) for steps in ((30,), (30, 40), (20, 30, 40))),
    ],
    ids=lambda value: value.kind if isinstance(value, Guidance) else f"T = {len(value)}",
)
def test_guidance_and_what_changes_of_it_are_as_on_the_cpu(
    tiny_bundle: Path, plans: Path, guidance: Guidance, step_list: tuple[int, ...], form: Form, overlap: bool
) -> None:
    frames = pictures(20)
    other_prompt = "a green car" if guidance.negative_prompt else ""

    def stream_with(options: Any) -> list[FinishedFrame]:
        others: dict[str, Any] = {"guidance": guidance, "step_list": step_list, "options": options}
        with Stream.open(tiny_bundle, prompt="a red fox", **others) as stream:
            finished = [frame for image in frames[:12] for frame in stream(image)]
            stream.set_guidance_scale(1.4)
            finished += [frame for image in frames[12:15] for frame in stream(image)]
            stream.set_guidance(Guidance(guidance.kind, 1.3, other_prompt, guidance.delta))
            return [*finished, *stream.run(frames[15:], ahead=stream.full_ahead)]

    on_gpu = stream_with(TensorRTOptions(form=form, plans=plans, overlap=overlap))
    assert [frame.index for frame in on_gpu] == list(range(20))
    assert max(differences(on_gpu, stream_with(None))) < 4  # the scale magnifies what TF32 leaves, too


def change_kinds(stream: Stream, count: int) -> Iterator[Image]:
    """Yield frames, and guide otherwise every seven of them, with other steps in between."""
    kinds = [Guidance("full", 1.3, "two cats"), Guidance("self", 1.2), Guidance("initialize", 1.2, "two cats")]
    for index, picture in enumerate(pictures(count)):
        if index and index % 7 == 0:
            stream.set_guidance(kinds[index // 7 % 3])
        if index == 16:
            stream.set_step_list((20, 30, 40))
        yield picture


@on_and_off
@pytest.mark.parametrize("form", ["split", "whole"])
def test_kinds_of_guidance_change_in_mid_stream_as_on_the_cpu(
    tiny_bundle: Path, plans: Path, form: Form, overlap: bool
) -> None:
    """With ticks captured while frames are on their way."""

    def stream_with(options: Any) -> list[FinishedFrame]:
        kinds: Any = {"guidance_kinds": ("self", "full", "initialize"), "max_steps": 3, "options": options}
        with Stream.open(tiny_bundle, prompt="a red fox", **kinds) as stream:
            return list(stream.run(change_kinds(stream, 40), ahead=stream.full_ahead))

    on_gpu = stream_with(TensorRTOptions(form=form, plans=plans, overlap=overlap))
    assert [frame.index for frame in on_gpu] == list(range(40))
    assert max(differences(on_gpu, stream_with(None))) < 4


@on_and_off
@pytest.mark.parametrize("form", ["split", "whole"])
def test_a_captured_pass_of_warm_up_makes_the_bits_of_one_that_is_enqueued(
    tiny_bundle: Path, plans: Path, monkeypatch: pytest.MonkeyPatch, form: Form, overlap: bool
) -> None:
    """All sinks that are filled: of a clip's first frames, and anew, under every kind of guidance."""
    options = TensorRTOptions(form=form, plans=plans, overlap=overlap)

    def stream_everything() -> list[FinishedFrame]:
        kinds: tuple[GuidanceKind, ...] = ("full", "self", "initialize")
        with Stream.open(tiny_bundle, options=options, guidance_kinds=kinds, max_steps=3) as stream:
            return list(stream.run(change_kinds(stream, 30), ahead=stream.full_ahead))

    found = stream_everything()
    monkeypatch.setattr(tick, "CapturedWork", EnqueuedWork)
    assert differences(found, stream_everything()) == [0] * 30


@pytest.mark.parametrize("form", ["split", "whole"])
def test_overlap_does_not_change_a_bit_of_guided_frames(tiny_bundle: Path, plans: Path, form: Form) -> None:
    def stream_with(overlap: bool) -> list[FinishedFrame]:
        options = TensorRTOptions(form=form, plans=plans, overlap=overlap)
        kinds: Any = {"guidance_kinds": ("self", "full", "initialize"), "max_steps": 3, "options": options}
        with Stream.open(tiny_bundle, prompt="a red fox", **kinds) as stream:
            return list(stream.run(change_kinds(stream, 60), ahead=stream.full_ahead))

    assert differences(stream_with(False), stream_with(True)) == [0] * 60


def test_eight_steps_under_both_prompts_are_as_on_the_cpu(tiny_bundle: Path, plans: Path) -> None:
    """Sixteen rows, on plans for two: the most that there may be."""
    frames, steps = pictures(12), (5, 10, 15, 20, 25, 30, 35, 40)
    guidance = Guidance("full", 1.1, "two cats")
    on_cpu, on_gpu = (
        finish(tiny_bundle, options, frames, step_list=steps, guidance=guidance)
        for options in (None, TensorRTOptions(plans=plans))
    )
    assert max(differences(on_gpu, on_cpu)) < 6


@on_and_off
def test_a_prompt_acts_from_the_next_tick_on(tiny_bundle: Path, plans: Path, overlap: bool) -> None:
    frames = pictures(14)

    def stream_with(options: Any) -> list[FinishedFrame]:
        with Stream.open(tiny_bundle, prompt="a red fox", step_list=(30,), options=options) as stream:
            finished = [frame for image in frames[:10] for frame in stream(image)]
            stream.set_prompt("a watercolour cat")
            return finished + [frame for image in frames[10:] for frame in stream(image)]

    on_gpu = stream_with(TensorRTOptions(plans=plans, overlap=overlap))
    assert max(differences(on_gpu, stream_with(None))) < 1.5


@on_and_off
@pytest.mark.parametrize("form", ["split", "whole"])
def test_steps_change_in_mid_stream_as_on_the_cpu(tiny_bundle: Path, plans: Path, form: Form, overlap: bool) -> None:
    """Up to three and down to one, with ticks captured while frames are on their way."""
    frames = pictures(30)

    def stream_with(options: Any) -> list[FinishedFrame]:
        with Stream.open(tiny_bundle, prompt="a red fox", max_steps=3, options=options) as stream:

            def change_steps() -> Iterator[Image]:
                for index, picture in enumerate(frames):
                    if index == 11:
                        stream.set_step_list((20, 30, 40))
                    elif index == 20:
                        stream.set_step_list((35,))
                    yield picture

            return list(stream.run(change_steps(), ahead=stream.full_ahead))

    on_gpu = stream_with(TensorRTOptions(form=form, plans=plans, overlap=overlap))
    assert [frame.index for frame in on_gpu] == list(range(30))
    # A change that came a frame too early or too late would be off by 10 levels and more.
    assert max(differences(on_gpu, stream_with(None))) < 3


def test_a_prompt_and_a_seed_that_change_while_frames_are_on_their_way_act_on_the_same_tick(
    tiny_bundle: Path, plans: Path
) -> None:
    def stream_with(overlap: bool) -> list[FinishedFrame]:
        options = TensorRTOptions(plans=plans, overlap=overlap)
        with Stream.open(tiny_bundle, prompt="a red fox", options=options) as stream:

            def change_prompts() -> Iterator[Image]:
                for index, picture in enumerate(pictures(30)):
                    if index % 5 == 4:
                        turning = Transition(3, "frames") if index % 10 == 9 else None
                        stream.set_prompt(f"{index} watercolour cats", turning)
                        stream.set_seed(index)
                    yield picture

            return list(stream.run(change_prompts(), ahead=stream.full_ahead))

    assert differences(stream_with(True), stream_with(False)) == [0] * 30


_HASH_A_STREAM = """
import hashlib, sys
from pathlib import Path
import numpy as np
from live2diff_trt import Stream
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
bundle, plans, form = sys.argv[1:]
generator = np.random.default_rng(0)
frames = [generator.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(40)]
digest = hashlib.sha256()
with Stream.open(bundle, prompt="a red fox", options=TensorRTOptions(form=form, plans=Path(plans))) as stream:
    for frame in stream.run(frames):
        digest.update(frame.image.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("form", ["split", "whole"])
def test_two_processes_give_the_same_bits(tiny_bundle: Path, plans: Path, form: str) -> None:
    command = [sys.executable, "-c", _HASH_A_STREAM, str(tiny_bundle), str(plans), form]
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2))
    assert len(first.strip()) == 64
    assert first == second


@on_and_off
def test_a_run_in_three_threads_changes_no_bit(tiny_bundle: Path, plans: Path, overlap: bool) -> None:
    """Frames are read in another thread, into page-locked memory that is used again."""
    options = TensorRTOptions(plans=plans, overlap=overlap)
    source, sink = TestPatternSource(80, 60, frame_count=200), KeepingSink()
    wanted = finish(tiny_bundle, options, list(TestPatternSource(80, 60, frame_count=200)))
    with Stream.open(tiny_bundle, prompt="a red fox", options=options) as stream:
        source.new_frame = stream.empty_frame
        with PacedRun(source, sink, "all", lambda frame, latency_ms: None) as run:
            for finished in stream.run(run.frames(), ahead=stream.full_ahead):
                run.deliver(finished)
    assert [frame.index for frame in sink.frames] == list(range(200))
    assert differences(sink.frames, wanted) == [0] * 200


@on_and_off
def test_pictures_may_come_and_go_on_the_device(tiny_bundle: Path, plans: Path, overlap: bool) -> None:
    import torch

    frames = pictures(14)
    wanted = finish(tiny_bundle, TensorRTOptions(plans=plans), frames)
    on_device = [torch.from_numpy(frame).cuda() for frame in frames]
    found = finish(tiny_bundle, TensorRTOptions(plans=plans, output="device", overlap=overlap), on_device)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(torch.utils.dlpack.from_dlpack(one.image).cpu().numpy(), other.image)
        assert np.array_equal(torch.as_tensor(one.image, device="cuda").cpu().numpy(), other.image)


@on_and_off
def test_the_callers_stream_is_waited_for(tiny_bundle: Path, plans: Path, overlap: bool) -> None:
    import torch

    frames = pictures(12)
    wanted = finish(tiny_bundle, TensorRTOptions(plans=plans), frames)

    def write_late() -> Iterator[Any]:
        side = torch.cuda.Stream()
        for frame in frames:
            given = torch.from_numpy(frame).pin_memory()
            picture = torch.zeros(frame.shape, dtype=torch.uint8, device="cuda")
            torch.cuda.synchronize()
            with torch.cuda.stream(side):
                torch.cuda._sleep(20_000_000)  # about ten milliseconds
                picture.copy_(given, non_blocking=True)
                yield picture

    options = TensorRTOptions(plans=plans, overlap=overlap)
    with Stream.open(tiny_bundle, prompt="a red fox", options=options) as stream:
        found = list(stream.run(write_late(), ahead=stream.full_ahead))
    assert all(np.array_equal(one.image, other.image) for one, other in zip(found, wanted, strict=True))


def test_what_is_no_picture_is_refused_and_the_stream_goes_on(tiny_bundle: Path, plans: Path) -> None:
    import torch

    frames = pictures(12)
    wanted = finish(tiny_bundle, TensorRTOptions(plans=plans), frames)
    with Stream.open(tiny_bundle, prompt="a red fox", options=TensorRTOptions(plans=plans)) as stream:
        found = []
        for frame in frames:
            with pytest.raises(FrameError):
                stream(np.zeros((4, 4), np.uint8))
            with pytest.raises(FrameError):
                stream(torch.zeros(4, 4, 3, device="cuda"))
            found += stream(frame)
        found += stream.flush()
    assert all(np.array_equal(one.image, other.image) for one, other in zip(found, wanted, strict=True))


@on_and_off
@pytest.mark.parametrize("kinds", [(), ("full", "self")])
def test_a_session_allocates_what_was_estimated(
    tiny_bundle: Path, plans: Path, kinds: tuple[GuidanceKind, ...], overlap: bool
) -> None:
    options = TensorRTOptions(plans=plans, overlap=overlap)
    bundle = Bundle.open(tiny_bundle)
    with Stream.open(tiny_bundle, guidance_kinds=kinds, options=options) as stream:
        estimate = estimate_for(bundle, bundle.spec, options, room=StreamRoom.of(bundle.spec.steps, kinds))
        parts = stream._pipeline.parts  # type: ignore[attr-defined]
        own, shared = dict(parts.memory.allocated), dict(parts.unet.opened.memory.allocated)
    assert estimate is not None
    assert own == estimate.own
    assert shared == {purpose: size for purpose, size in estimate.shared.items() if purpose != "weights"}


def test_a_session_that_does_not_fit_is_refused_before_anything_is_allocated(
    tiny_bundle: Path, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(tiny_bundle, TensorRTOptions(plans=plans), [])
    monkeypatch.setattr("live2diff_trt.runtime.cuda_session.free_memory", lambda _: 1_000_000)
    with pytest.raises(DeviceMemoryError, match="kv-cache ring"):
        Stream.open(tiny_bundle, options=TensorRTOptions(plans=plans))
