"""Options that choose the denoising steps: a list of them, or a strength that spreads as many as there were."""

from __future__ import annotations

import re
from dataclasses import dataclass

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import ScheduleSpec, check_step_list, check_strength, spread_steps


@dataclass(frozen=True)
class StepOptions:
    """What is said of the denoising steps: a list, a strength, or nothing."""

    step_list: tuple[int, ...] | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.step_list is not None and self.strength is not None:
            raise SpecError("a step list and a strength exclude each other", "Leave out the one or the other")

    def check(self, schedule: ScheduleSpec) -> None:
        """Raise SpecError if the list is not valid, or the strength is so for no number of steps."""
        if self.step_list is not None:
            check_step_list(self.step_list, schedule)
        if self.strength is not None:
            check_strength(self.strength)

    def choose(self, own: tuple[int, ...], schedule: ScheduleSpec) -> tuple[int, ...]:
        """Return the list of steps that takes the place of ``own``, which is kept if nothing is said.

        Raises:
            SpecError: if the strength leaves too few timesteps for as many steps as ``own`` has.
        """
        if self.strength is not None:
            return spread_steps(self.strength, len(own), schedule)
        return own if self.step_list is None else self.step_list


def read_steps(step_list: str | None, strength: float | None) -> StepOptions:
    """Read the two options; raise SpecError if the list is something else, or both are given."""
    return StepOptions(None if step_list is None else read_step_list(step_list), strength)


def read_step_list(text: str) -> tuple[int, ...]:
    """Read a comma-separated list of steps; raise SpecError if it is something else."""
    if re.fullmatch(r"\d+(,\d+)*", text) is None:
        raise SpecError(f"{text!r} is not a step list", "Write indices from 0 to 49 with commas between, as in 30,40")
    return tuple(int(index) for index in text.split(","))
