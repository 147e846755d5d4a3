"""Prompts of ``run``: several at once, and others later in the video."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import SourceFrame
from live2diff_trt.runtime.prompt_blend import Interpolation, PromptBlend, Transition
from live2diff_trt.runtime.stream import Stream

_CHANGE_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*:(.*)", re.DOTALL)


@dataclass(frozen=True)
class PromptChange:
    """A prompt that comes later: from the first frame that is shown at ``time`` or after, in seconds."""

    time: Fraction
    prompt: str


def blend_prompts(prompts: Sequence[str], weights: Sequence[float], interpolation: Interpolation) -> PromptBlend:
    """Give each prompt its weight, or all the same; none is the empty prompt.

    Raises:
        ControlError: if there are weights, but not one for each prompt, or they are no weights.
    """
    prompts = prompts or [""]
    if weights and len(weights) != len(prompts):
        raise ControlError(
            f"the number of prompts is {len(prompts)}, that of weights {len(weights)}",
            'Give each prompt its weight, as in --prompt "a fox" --weight 0.7 --prompt "a cat" --weight 0.3',
        )
    if len(set(prompts)) != len(prompts):
        raise ControlError("a prompt is given twice", "Give it once, with a larger weight")
    return PromptBlend(dict(zip(prompts, weights or [1.0] * len(prompts), strict=True)), interpolation)


def read_changes(texts: Iterable[str]) -> list[PromptChange]:
    """Read ``SECONDS:PROMPT`` of each; return them in the order of their times; raise ControlError if one is not so."""
    return sorted((_read_change(text) for text in texts), key=lambda change: change.time)


def follow_changes(
    frames: Iterable[SourceFrame], changes: Iterable[PromptChange], transition: Transition | None, stream: Stream
) -> Iterator[SourceFrame]:
    """Pass frames on, and set each prompt before the first frame that it is for."""
    remaining = list(changes)
    for frame in frames:
        while remaining and remaining[0].time <= frame.time:
            stream.set_prompt(remaining.pop(0).prompt, transition)
        yield frame


def _read_change(text: str) -> PromptChange:
    found = _CHANGE_FORM.fullmatch(text)
    if found is None:
        raise ControlError(
            f"{text!r} is no prompt with a time", 'Write SECONDS:PROMPT, as in --then "5:a snowy forest"'
        )
    return PromptChange(Fraction(found[1]), found[2].strip())
