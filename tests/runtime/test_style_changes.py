"""Other weights in mid-stream: exact on the host, alike on the emulated GPU; what can not be had changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from live2diff_trt.bundle.errors import BundleError, RestyleError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance
from live2diff_trt.runtime.host_pipeline import HostPipeline
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom
from tests.restyled_bundle import restyle_bundle
from tests.runtime.emulated_bench import PROMPT, Bench, pictures, run
from tests.runtime.test_step_changes import stream_anew
from tests.runtime.test_stream_controls import give, same

OPTIONS = OnnxRuntimeOptions(threads=1)


def open_host(bundle: Path, guidance: Guidance = NO_GUIDANCE) -> HostPipeline:
    opened = Bundle.open(bundle, ())
    room = StreamRoom(2, frozenset({"none", guidance.kind}))
    return HostPipeline(opened, opened.spec, OPTIONS, 0, guidance, room=room)


def stream_of(other_bundle: Path, frames: Sequence[Image], at: int, guidance: Guidance = NO_GUIDANCE) -> list[Image]:
    """Return what a pipeline opened on another bundle makes, warmed up from the 8 frames before ``at``."""
    pipeline = open_host(other_bundle, guidance)
    pipeline.set_text_embeddings(pipeline.encode_prompt(PROMPT))
    return stream_anew(pipeline, frames, at, pipeline.spec.step_list)


def check_change(bench: Bench, style: Path, other_bundle: Path, at: int, guidance: Guidance = NO_GUIDANCE) -> None:
    frames = pictures(at + 6)
    expected = stream_of(other_bundle, frames, at, guidance)
    unchanged = bench.host(run(frames[:at]), guidance=guidance)

    def change(stream: Stream) -> list[FinishedFrame]:
        finished = give(stream, frames[:at])
        stream.set_style(style)
        finished += stream.run(frames[at:])
        stream.set_style(None)
        return [*finished, *give(stream, frames[:12]), *stream.flush()]

    found = bench.host(change, guidance=guidance)
    styled, again = found[: at + 6], found[at + 6 :]
    assert [frame.index for frame in styled] == list(range(at + 6))
    assert all(same(styled[:at], unchanged))
    assert all(np.array_equal(one.image, other) for one, other in zip(styled[at:], expected, strict=True))
    assert all(same(again, bench.host(run(frames[:12]), guidance=guidance)))


@pytest.mark.parametrize("at", [8, 13])
def test_it_goes_on_as_a_stream_of_the_other_bundle_and_back_bit_by_bit(
    bench: Bench, other_bundle: Path, ink: Path, at: int
) -> None:
    check_change(bench, ink, other_bundle, at)


def test_a_bundle_is_a_style_too(bench: Bench, other_bundle: Path) -> None:
    check_change(bench, other_bundle, other_bundle, 11)


def test_the_negative_prompt_is_encoded_anew(bench: Bench, other_bundle: Path, ink: Path) -> None:
    check_change(bench, ink, other_bundle, 11, Guidance("full", 1.5, "two cats"))


def visit(stream: Stream, styles: Sequence[Path | None], frames: Sequence[Image]) -> list[FinishedFrame]:
    """Go through styles, four frames each, and begin a new clip under the last one."""
    give(stream, frames[:9])
    for style in styles:
        stream.set_style(style)
        give(stream, frames[9:13])
    stream.flush()
    return give(stream, frames[:12])


def test_what_one_style_changes_and_the_next_does_not_is_the_bundles_own(
    bench: Bench, tiny_bundle: Path, ink: Path, few: Path
) -> None:
    """A → B → C is A → C: nothing of B is left where only B changed something."""
    frames = pictures(13)
    expected = bench.host(lambda stream: visit(stream, [few], frames))
    bench.host(lambda stream: visit(stream, [None], frames))
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        found = visit(stream, [ink, few], frames)
    assert all(same(found, expected))


def test_a_stream_may_be_opened_in_a_style(tiny_bundle: Path, other_bundle: Path, ink: Path) -> None:
    frames = pictures(12)
    with Stream.open(other_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
    with Stream.open(tiny_bundle, prompt=PROMPT, style=ink, options=OPTIONS) as stream:
        assert all(same(list(stream.run(frames)), expected))


def test_a_style_of_a_stream_that_has_gathered_some_frames_takes_effect(
    tiny_bundle: Path, other_bundle: Path, ink: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = pictures(12)
    with Stream.open(other_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        assert give(stream, frames[:3]) == []
        stream.set_style(ink)
        with caplog.at_level("INFO", logger="live2diff_trt"):
            assert all(same(list(stream.run(frames[3:])), expected))
    assert "another style is in effect; the stream paused" in caplog.text


def test_styles_set_back_before_a_frame_came_change_nothing(tiny_bundle: Path, ink: Path, few: Path) -> None:
    frames = pictures(12)
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
        found = give(stream, frames[:10])
        stream.set_style(ink)
        stream.set_style(few)
        stream.set_style(tiny_bundle)
        found += stream.run(frames[10:])
        assert all(same(found, expected))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Styles are not ready before this is set."""
    event = Event()
    prepare = HostPipeline.prepare_style

    def prepare_late(self: HostPipeline, weights: Any, check: Any) -> Any:
        assert event.wait(60)
        return prepare(self, weights, check)

    monkeypatch.setattr(HostPipeline, "prepare_style", prepare_late)
    yield event
    event.set()


def test_frames_go_on_while_a_style_is_prepared(tiny_bundle: Path, ink: Path, held: Event) -> None:
    frames = pictures(14)
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
        found = give(stream, frames[:9])
        stream.set_style(ink, wait=False)
        found += give(stream, frames[9:12])
        assert all(same(found, expected[: len(found)]))
        held.set()
        preparing = stream._style._preparing
        assert preparing is not None
        preparing.ready.result(60)
        found += stream.run(frames[12:])
        assert [frame.index for frame in found] == list(range(14))
        assert same(found, expected) == [True] * 12 + [False] * 2


def test_a_style_that_is_set_takes_the_place_of_one_that_is_not_ready(
    tiny_bundle: Path, ink: Path, few: Path, held: Event
) -> None:
    frames = pictures(14)
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        give(stream, frames[:9])
        stream.set_style(ink, wait=False)
        first = stream._style._preparing
        stream.set_style(few, wait=False)
        second = stream._style._preparing
        assert first is not None
        assert second is not None
        held.set()
        with pytest.raises(ControlError, match=r"the style .*ink\.safetensors is not wanted any more"):
            first.ready.result(60)
        second.ready.result(60)
        found = give(stream, frames[9:])
        stream.flush()
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        give(stream, frames[:9])
        stream.set_style(few)
        assert all(same(found, give(stream, frames[9:])))


def test_a_style_that_cant_be_had_takes_the_place_of_one_that_is_not_ready_too(
    tiny_bundle: Path, ink: Path, few: Path, held: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pictures(14)
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
        found = give(stream, frames[:9])
        stream.set_style(ink, wait=False)
        monkeypatch.setattr(HostPipeline, "prepare_style", refuse)
        held.set()
        with pytest.raises(BackendError, match="no memory"):
            stream.set_style(few)
        assert all(same([*found, *stream.run(frames[9:])], expected))


def refuse(*_: object) -> None:
    raise BackendError("there is no memory", "Free some")


@pytest.mark.parametrize("wait", [False, True])
def test_a_style_that_cant_be_prepared_leaves_the_old_one(
    tiny_bundle: Path, ink: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    frames = pictures(14)
    monkeypatch.setattr(HostPipeline, "prepare_style", refuse)
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
        found = give(stream, frames[:10])
        if wait:
            with pytest.raises(BackendError, match="no memory"):
                stream.set_style(ink)
        else:
            stream.set_style(ink, wait=False)
            preparing = stream._style._preparing
            assert preparing is not None
            preparing.ready.exception(60)
            with pytest.raises(BackendError, match="no memory"):
                stream(frames[10])
        found += stream._deliver()  # what was on its way when the frame was refused
        found += stream.run(frames[10:])
        assert all(same(found, expected))


def test_what_is_no_style_changes_nothing(tiny_bundle: Path, tmp_path: Path, ink: Path) -> None:
    frames = pictures(12)
    (tmp_path / "cut.safetensors").write_bytes(ink.read_bytes()[:5000])
    with Stream.open(tiny_bundle, prompt=PROMPT, options=OPTIONS) as stream:
        expected = list(stream.run(frames))
        found = give(stream, frames[:10])
        with pytest.raises(RestyleError, match="can't be read as safetensors"):
            stream.set_style(tmp_path / "cut.safetensors")
        with pytest.raises(RestyleError, match="there is no style"):
            stream.set_style(tmp_path / "absent.safetensors")
        with pytest.raises(BundleError, match="is not a bundle"):
            stream.set_style(tmp_path)
        with pytest.raises(ControlError, match="a style is 7"):
            stream.set_style(7)  # type: ignore[arg-type]
        assert all(same([*found, *stream.run(frames[10:])], expected))


def test_a_bundle_that_changed_on_the_disk_is_not_read(tiny_bundle: Path, tmp_path: Path, ink: Path) -> None:
    folder = restyle_bundle(tiny_bundle, tmp_path / "bundle", seed=1)
    with Stream.open(folder, prompt=PROMPT, options=OPTIONS) as stream:
        content = bytearray((folder / "unet.data").read_bytes())
        content[7000] ^= 1
        (folder / "unet.data").write_bytes(content)
        with pytest.raises(BundleError, match=r"unet\.data does not have the hash"):
            stream.set_style(ink)
