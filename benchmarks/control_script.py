"""A run that uses every control: what is done to a stream, and how many frames are to show what that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.guidance import Guidance, GuidanceKind
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.scene_cut import SceneCut
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.stream import Stream

PROMPT = "a watercolour painting"
FIRST_GUIDANCE = Guidance("self", 1.2)
KINDS: tuple[GuidanceKind, ...] = ("self", "full", "initialize")
"""What the stream is opened for, beside none."""
_DIFFERENT = 32

Scene = Literal["moves", "stands", "another"]


@dataclass(frozen=True)
class Part:
    """A control and the frames behind it.

    Attributes:
        name: of the part, lower-case.
        control: sets it; the same frames would stream on without it.
        scene: what the frames show.
        frames: how many more than usual.
    """

    name: str
    control: Callable[[Stream], None]
    scene: Scene = "moves"
    frames: int = 0


def most_steps(spec: StreamSpec) -> int:
    """Return how many steps the stream needs room for: one more than it begins with, if there can be so many."""
    return min(spec.steps + 1, 8)


def list_parts(spec: StreamSpec, style: Path | None = None) -> list[Part]:
    """Return the parts in order. A new control of streams belongs here.

    Args:
        spec: the stream's as it begins.
        style: that it changes to, and back from; None: there is none to change to.
    """
    sink, usual = spec.sink, spec.step_list
    others = tuple(max(step - 1, index) for index, step in enumerate(usual))
    more = tuple(range(20, 20 + 3 * most_steps(spec), 3))
    blend = PromptBlend({"a fox": 2, "a cat": 1})
    arc = PromptBlend({"snow": 1, "rain": 1}, interpolation="spherical")
    restyled = [
        Part("style", lambda stream: stream.set_style(style)),
        Part("style_back", lambda stream: stream.set_style(None)),
    ]
    return [
        Part("begin", lambda stream: None, frames=sink),
        Part("prompt", lambda stream: stream.set_prompt("a red fox")),
        Part("blend", lambda stream: stream.set_prompt(blend)),
        Part("linear_transition", lambda stream: stream.set_prompt("a forest", Transition(0.2))),
        Part("spherical_transition", lambda stream: stream.set_prompt(arc, Transition(5, "frames", "spherical"))),
        Part("seed", lambda stream: stream.set_seed(7)),
        Part("guidance_scale", lambda stream: stream.set_guidance_scale(1.5)),
        Part("guidance_delta", lambda stream: stream.set_guidance(Guidance("self", 1.5, delta=0.8))),
        Part("guidance_full", lambda stream: stream.set_guidance(Guidance("full", 1.5, "blurry"))),
        Part("negative_prompt", lambda stream: stream.set_guidance(Guidance("full", 1.5, "dark"))),
        Part("guidance_initialize", lambda stream: stream.set_guidance(Guidance("initialize", 1.3, "dark"))),
        Part("guidance_none", lambda stream: stream.set_guidance(Guidance())),
        Part("filter", lambda stream: stream.set_similar_image_filter(SimilarImageFilter(0.9, 3)), "stands"),
        Part("no_filter", lambda stream: stream.set_similar_image_filter(None)),
        Part("pause", lambda stream: stream.pause()),
        Part("resume", lambda stream: stream.resume()),
        Part("step_list", lambda stream: stream.set_step_list(others)),
        Part("more_steps", lambda stream: stream.set_step_list(more)),
        Part("strength", lambda stream: stream.set_strength(0.5)),
        Part("fewer_steps", lambda stream: stream.set_step_list(usual)),
        *(restyled if style is not None else ()),
        Part("rewarm", lambda stream: stream.rewarm(), frames=sink),
        Part("watch_for_cuts", lambda stream: stream.set_rewarm_on_cut(SceneCut())),
        Part("cut", lambda stream: None, "another", frames=sink),
        Part("no_cuts", lambda stream: stream.set_rewarm_on_cut(None), "another"),
    ]


class ScriptPictures:
    """Frames in which nothing jumps, but where the scene is another.

    Args:
        width, height: of the frames.
    """

    def __init__(self, width: int, height: int) -> None:
        self._pictures = [frame.image for frame in islice(TestPatternSource(width, height), _DIFFERENT)]
        self._at = 0

    def show(self, scene: Scene, count: int) -> Iterator[Image]:
        """Yield the next frames, uint8 [height, width, 3] each."""
        for _ in range(count):
            self._at += scene != "stands"
            there, back = divmod(self._at, _DIFFERENT - 1)
            picture = self._pictures[back if there % 2 == 0 else _DIFFERENT - 1 - back]
            yield picture // 3 if scene == "another" else picture
