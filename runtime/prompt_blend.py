"""What a video should look like: one prompt, or several at once; and how long it takes to turn into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from numbers import Real
from types import MappingProxyType
from typing import Literal, get_args

from live2diff_trt.runtime.errors import ControlError

Interpolation = Literal["linear", "spherical"]
"""The way between two text embeddings: straight, or along the arc, which keeps their length."""

Unit = Literal["seconds", "frames"]


@dataclass(frozen=True)
class PromptBlend:
    """Several prompts at once.

    Attributes:
        weights: prompt → its share, 0 or more; only their ratios matter.
        interpolation: between the prompts. Spherical, more than two are joined one after the other, in their order.

    Raises:
        ControlError: if there is no prompt, or a weight is not a finite number of 0 or more, or all are 0.
    """

    weights: Mapping[str, float]
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not all(isinstance(prompt, str) for prompt in self.weights):
            raise ControlError(
                f"a blend is of {self.weights!r}",
                "Pass prompts and weights, as in PromptBlend({'a fox': 2, 'a cat': 1})",
            )
        for prompt, weight in self.weights.items():
            if not is_number(weight) or weight < 0:
                raise ControlError(f"the weight of {prompt!r} is {weight!r}", "Use a finite number, 0 or more")
        if not sum(self.weights.values()):
            raise ControlError("no prompt of a blend has any weight", "Give one a weight above 0")
        check_interpolation(self.interpolation)
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))  # later changes are not ours

    @property
    def shares(self) -> dict[str, float]:
        """Prompts that have a weight, and their weights so that they sum to 1."""
        total = float(sum(self.weights.values()))
        return {prompt: weight / total for prompt, weight in self.weights.items() if weight > 0}


@dataclass(frozen=True)
class Transition:
    """How long a prompt takes to replace the one before: ``Transition(2)``, or ``Transition(50, "frames")``.

    Attributes:
        length: seconds above 0, or a whole number of frames from 1. The last of those has the new prompt alone.
        unit: seconds of the frames' own presentation times, or frames. No clock is read.
        interpolation: between the two prompts.

    Raises:
        ControlError: if one of them is something else.
    """

    length: float
    unit: Unit = "seconds"
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ControlError(f"the unit of a transition is {self.unit!r}", "Use seconds or frames")
        if not is_number(self.length) or self.length <= 0:
            raise ControlError(f"a transition takes {self.length!r} {self.unit}", "Use a finite number above 0")
        if self.unit == "frames" and self.length != int(self.length):
            raise ControlError(f"a transition takes {self.length!r} frames", "Use a whole number")
        check_interpolation(self.interpolation)

    def fraction(self, frames: int, seconds: Fraction) -> float:
        """Return how much of it lies behind: 0 at its beginning, 1 or more at its end and after."""
        return float((frames if self.unit == "frames" else seconds) / self.length)


def check_interpolation(interpolation: object) -> None:
    """Raise ControlError unless it is one."""
    known = get_args(Interpolation)
    if interpolation not in known:
        raise ControlError(f"there is no interpolation {interpolation!r}", f"Use {' or '.join(known)}")


def is_number(value: object) -> bool:
    """Return whether it is a real number, and a finite one."""
    return isinstance(value, Real) and isfinite(value)
