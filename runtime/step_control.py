"""The denoising steps of a stream: checked and prepared when they are set, due when the next frame is computed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from operator import index

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import check_step_list, spread_steps
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.pipeline import Pipeline


class StepControl:
    """Which denoising steps a pipeline is to have.

    Attributes:
        wanted: the step list that was set last.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.wanted = pipeline.spec.step_list

    @property
    def are_due(self) -> bool:
        """Whether other steps are wanted than those in effect."""
        return self.wanted != self._pipeline.spec.step_list

    def set_step_list(self, step_list: Sequence[int]) -> None:
        """Want these steps; raise ControlError, and change nothing, if there can't be such."""
        steps = _as_step_list(step_list)
        try:
            check_step_list(steps, self._pipeline.spec.schedule)
        except SpecError as error:
            raise ControlError(error.problem, error.remedy) from error
        self._want(steps)

    def set_strength(self, strength: object) -> None:
        """Want as many steps as now, spread by a strength; raise ControlError, and change nothing, if it is none."""
        if isinstance(strength, bool) or not isinstance(strength, Real):
            raise ControlError(f"a strength is {strength!r}", "Use a number above 0 and up to 1, as 0.4")
        try:
            steps = spread_steps(float(strength), len(self.wanted), self._pipeline.spec.schedule)
        except SpecError as error:
            raise ControlError(error.problem, error.remedy) from error
        self._want(steps)

    def _want(self, steps: tuple[int, ...]) -> None:
        room = self._pipeline.max_steps
        if len(steps) > room:
            raise ControlError(
                f"the stream has room for {room} denoising steps, not for {len(steps)}",
                f"Open it with max_steps={len(steps)}, or name no more than {room}",
            )
        if steps != self._pipeline.spec.step_list:
            self._pipeline.prepare_steps(steps)
        self.wanted = steps


def _as_step_list(step_list: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(index(step) for step in step_list)
    except TypeError as error:
        raise ControlError(f"a step list is {step_list!r}", "Name indices of timesteps, as in (30, 40)") from error
