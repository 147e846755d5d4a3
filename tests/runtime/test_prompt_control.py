"""A prompt is encoded once, when it is set, and projected once for each step of a transition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.prompt_control import PromptControl
from live2diff_trt.runtime.stream import Stream
from tests.runtime.plain_pipeline import PlainPipeline
from tests.runtime.test_stream_states import tell

SINK = 8


def embeddings_of(prompt: str) -> Array:
    return PlainPipeline().encode_prompt(prompt)


def streaming(pipeline: PlainPipeline, frames: int = 10) -> Stream:
    stream = Stream(pipeline)
    stream.set_prompt("a house")
    for number in range(frames):
        stream(tell(number))
    return stream


def shares(pipeline: PlainPipeline, start: str, end: str) -> list[float]:
    """Return how much of the new prompt was told, each time that something was."""
    one, other = embeddings_of(start), embeddings_of(end)
    found = [float(((told - one) * (other - one)).sum() / ((other - one) ** 2).sum()) for told in pipeline.told]
    for told, share in zip(pipeline.told, found, strict=True):
        np.testing.assert_allclose(told, one + share * (other - one), atol=1e-5)
    return [round(share, 4) for share in found]


def test_a_prompt_that_stays_is_projected_once() -> None:
    pipeline = PlainPipeline()
    streaming(pipeline, 20).flush()
    assert pipeline.encoded == ["a house"]
    assert len(pipeline.told) == 1


def test_a_transition_in_frames_begins_with_the_next_and_ends_exactly() -> None:
    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    stream.set_prompt("a fox", Transition(4, "frames"))
    for number in range(10, 17):
        stream(tell(number))
    assert shares(pipeline, "a house", "a fox") == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_array_equal(pipeline.told[-1], embeddings_of("a fox"))
    assert pipeline.encoded == ["a house", "a fox"]


def test_a_transition_in_seconds_goes_by_presentation_times() -> None:
    pipeline = PlainPipeline()
    stream = Stream(pipeline)
    stream.set_prompt("a house")
    for number in range(9):
        stream(tell(number), Fraction(number, 10))
    stream.set_prompt("a fox", Transition(1))
    for hundredths in (90, 95, 130, 130, 120, 150, 250):
        stream(tell(9), Fraction(hundredths, 100))
    # From 0.80 s on; a time that goes back counts as no time, and what follows counts from there.
    assert shares(pipeline, "a house", "a fox") == [0, 0.1, 0.15, 0.5, 0.5, 0.5, 0.8, 1]


def test_a_transition_without_times_takes_25_frames_a_second() -> None:
    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    stream.set_prompt("a fox", Transition(0.2))
    for number in range(10, 17):
        stream(tell(number))
    assert shares(pipeline, "a house", "a fox") == [0, 0.2, 0.4, 0.6, 0.8, 1]


def test_a_transition_may_leave_from_the_middle_of_another() -> None:
    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    stream.set_prompt("a fox", Transition(4, "frames"))
    stream(tell(10))
    stream(tell(11))
    stream.set_prompt("a house", Transition(2, "frames"))
    for number in range(12, 15):
        stream(tell(number))
    assert shares(pipeline, "a house", "a fox") == [0, 0.25, 0.5, 0.25, 0]


def test_a_transition_waits_in_a_pause() -> None:
    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    stream.set_prompt("a fox", Transition(0.2))
    stream(tell(10))
    stream.pause()
    for number in range(11, 20):
        stream(tell(number))
    stream.resume()
    stream(tell(20))
    assert shares(pipeline, "a house", "a fox") == [0, 0.2, 0.4]


def test_a_transition_over_the_first_frames_is_projected_when_they_are_denoised() -> None:
    pipeline = PlainPipeline()
    stream = Stream(pipeline)
    stream.set_prompt("a house")
    stream.set_prompt("a fox", Transition(10, "frames"))
    for number in range(9):
        stream(tell(number))
    assert shares(pipeline, "a house", "a fox") == [0, 0.8, 0.9]


def test_the_next_clip_begins_where_a_transition_would_have_ended() -> None:
    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    stream.set_prompt("a fox", Transition(100, "frames"))
    stream(tell(10))
    stream.flush()
    for number in range(8):
        stream(tell(number))
    assert shares(pipeline, "a house", "a fox") == [0, 0.01, 1]


def test_a_frame_that_is_refused_is_no_step() -> None:
    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    stream.set_prompt("a fox", Transition(4, "frames"))
    with pytest.raises(Exception, match="Pass uint8 RGB"):
        stream(np.zeros((64, 64), np.uint8))
    stream(tell(10))
    stream(tell(11))
    assert shares(pipeline, "a house", "a fox")[-2:] == [0.25, 0.5]


def test_a_blend_is_encoded_prompt_by_prompt_and_new_weights_encode_nothing() -> None:
    pipeline = PlainPipeline()
    control = PromptControl(pipeline)
    control.set(PromptBlend({"a": 1, "b": 3, "c": 0}), None)
    control.set(PromptBlend({"a": 3, "b": 1}), None)
    control.set("b", None)
    assert pipeline.encoded == ["a", "b"]
    a, b = embeddings_of("a"), embeddings_of("b")
    for told, wanted in zip(pipeline.told, (0.25 * a + 0.75 * b, 0.75 * a + 0.25 * b, b), strict=True):
        np.testing.assert_allclose(told, wanted, rtol=1e-5, atol=1e-6)


def test_a_bad_control_changes_nothing() -> None:
    pipeline = PlainPipeline()
    control = PromptControl(pipeline)
    with pytest.raises(ControlError, match="Set the first without a transition"):
        control.set("a", Transition(2))
    control.set("a", None)
    for prompt, transition in ((None, None), (["b"], None), ("b", 2.0)):
        with pytest.raises(ControlError):
            control.set(prompt, transition)  # type: ignore[arg-type]
    assert pipeline.encoded == ["a"]
    assert len(pipeline.told) == 1


def test_a_prompt_that_cannot_be_encoded_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class RefusalError(Exception):
        """Stands for any."""

    def encode(prompt: str) -> Array:
        if prompt == "bad":
            raise RefusalError
        return embeddings_of(prompt)

    pipeline = PlainPipeline()
    stream = streaming(pipeline)
    monkeypatch.setattr(pipeline, "encode_prompt", encode)
    with pytest.raises(RefusalError):
        stream.set_prompt(PromptBlend({"good": 1, "bad": 1}), Transition(3, "frames"))
    stream(tell(10))
    assert len(pipeline.told) == 1
