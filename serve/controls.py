"""Messages of a visitor → controls of a stream."""

from __future__ import annotations

from functools import singledispatch

from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.scene_cut import SceneCut
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.serve import messages


@singledispatch
def apply_control(control: messages.Message, stream: Stream) -> None:
    """Change a stream as a control asks; raise ControlError, and change nothing, if it is not valid."""
    raise TypeError(f"{type(control).__name__} is no control")


@apply_control.register
def _(control: messages.SetPrompt, stream: Stream) -> None:
    weights: dict[str, float] = {}
    for prompt in control.prompts:
        weights[prompt.text] = weights.get(prompt.text, 0.0) + prompt.weight
    wanted = control.transition
    transition = None if wanted is None else Transition(wanted.length, wanted.unit, wanted.interpolation)
    stream.set_prompt(PromptBlend(weights, control.interpolation), transition)


@apply_control.register
def _(control: messages.SetSeed, stream: Stream) -> None:
    stream.set_seed(control.seed)


@apply_control.register
def _(control: messages.SetStepList, stream: Stream) -> None:
    stream.set_step_list(control.step_list)


@apply_control.register
def _(control: messages.SetStrength, stream: Stream) -> None:
    stream.set_strength(control.strength)


@apply_control.register
def _(control: messages.SetStyle, stream: Stream) -> None:
    stream.set_style(control.style)


@apply_control.register
def _(control: messages.SetSimilarImageFilter, stream: Stream) -> None:
    settings = SimilarImageFilter(control.threshold, control.maximum_skipped)
    stream.set_similar_image_filter(settings if control.enabled else None)


@apply_control.register
def _(control: messages.SetRewarmOnCut, stream: Stream) -> None:
    stream.set_rewarm_on_cut(SceneCut() if control.enabled else None)


@apply_control.register
def _(control: messages.Rewarm, stream: Stream) -> None:
    stream.rewarm()


@apply_control.register
def _(control: messages.Pause, stream: Stream) -> None:
    stream.pause()


@apply_control.register
def _(control: messages.Resume, stream: Stream) -> None:
    stream.resume()
