from __future__ import annotations

import pytest

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.serve import messages
from live2diff_trt.serve.controls import apply_control
from tests.runtime.plain_pipeline import PlainPipeline
from tests.serve.made_up_server import PlainStyles, picture

CONTROLS = [
    {"type": "prompt", "prompts": [{"text": "a fox", "weight": 2}, {"text": "a cat"}, {"text": "a fox"}],
     "interpolation": "spherical", "transition": {"length": 4, "unit": "frames"}},
    {"type": "seed", "seed": 2**53 - 1},
    {"type": "step_list", "step_list": [5, 6, 7]},
    {"type": "strength", "strength": 0.4},
    {"type": "style", "style": "ink"},
    {"type": "style", "style": None},
    {"type": "similar_image_filter", "enabled": True, "threshold": 0.9, "maximum_skipped": 3},
    {"type": "similar_image_filter", "enabled": False},
    {"type": "rewarm_on_cut", "enabled": True},
    {"type": "rewarm"},
    {"type": "resume"},
]  # fmt: skip


def read(message: object) -> messages.Message:
    return messages.from_visitor.validate_python(message, strict=False)


@pytest.fixture
def pipeline() -> PlainPipeline:
    return PlainPipeline()


@pytest.fixture
def stream(pipeline: PlainPipeline) -> Stream:
    stream = Stream(pipeline, styles=PlainStyles(("ink",)))
    stream.set_prompt("")
    return stream


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control["type"])
def test_every_control_is_taken(stream: Stream, control: dict[str, object]) -> None:
    stream(picture())
    apply_control(read(control), stream)
    for _ in range(12):
        stream(picture())


def test_what_controls_do(stream: Stream, pipeline: PlainPipeline) -> None:
    for control in CONTROLS[:4]:
        apply_control(read(control), stream)
    assert pipeline.encoded == ["", "a fox", "a cat"]
    assert pipeline.seeds == [2**53 - 1]
    assert pipeline.prepared == [((5, 6, 7), "none"), ((30, 36, 43), "none")]


@pytest.mark.parametrize(
    "control",
    [
        {"type": "pause"},
        {"type": "step_list", "step_list": [1, 2, 3, 4, 5]},
        {"type": "step_list", "step_list": [49, 50]},
        {"type": "strength", "strength": 0.001},
        {"type": "style", "style": "oil paint"},
        {"type": "prompt", "prompts": [{"text": "a fox", "weight": 0}]},
        {"type": "prompt", "prompts": [{"text": "a fox"}], "transition": {"length": 1.5, "unit": "frames"}},
    ],
)
def test_what_is_not_valid_changes_nothing(stream: Stream, pipeline: PlainPipeline, control: object) -> None:
    with pytest.raises(ControlError):
        apply_control(read(control), stream)
    assert (pipeline.encoded, pipeline.prepared) == ([""], [])


def test_what_is_no_control_is_a_fault_of_ours(stream: Stream) -> None:
    with pytest.raises(TypeError):
        apply_control(messages.Shown(type="shown", frame=1), stream)
