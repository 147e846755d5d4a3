"""What decides a stream's rows, denoising steps and guidance: checked and prepared when it is set, due at a frame."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from operator import index

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import check_step_list, spread_steps
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.guidance import Guidance, check_guidance
from live2diff_trt.runtime.pipeline import Pipeline


class RowControl:
    """Which denoising steps, and which kind of guidance, a pipeline is to have when the next frame is computed.

    Attributes:
        step_list: that was set last.
        guidance: that was set last. Of the kind that is in effect, it is in effect.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.step_list = pipeline.spec.step_list
        self.guidance = pipeline.guidance

    @property
    def are_due(self) -> bool:
        """Whether other rows are wanted than those in effect."""
        return self._are_others(self.step_list, self.guidance)

    def set_step_list(self, step_list: Sequence[int]) -> None:
        """Want these steps; raise ControlError, and change nothing, if there can't be such."""
        steps = _as_step_list(step_list)
        try:
            check_step_list(steps, self._pipeline.spec.schedule)
        except SpecError as error:
            raise ControlError(error.problem, error.remedy) from error
        self._want(steps, self.guidance)

    def set_strength(self, strength: object) -> None:
        """Want as many steps as now, spread by a strength; raise ControlError, and change nothing, if it is none."""
        if isinstance(strength, bool) or not isinstance(strength, Real):
            raise ControlError(f"a strength is {strength!r}", "Use a number above 0 and up to 1, as 0.4")
        try:
            steps = spread_steps(float(strength), len(self.step_list), self._pipeline.spec.schedule)
        except SpecError as error:
            raise ControlError(error.problem, error.remedy) from error
        self._want(steps, self.guidance)

    def set_guidance(self, guidance: object) -> None:
        """Guide otherwise from the next tick on, or want another kind; raise ControlError, and change nothing, if not.

        While another kind is wanted, the one in effect stays as it is.
        """
        wanted = check_guidance(guidance)
        self._want(self.step_list, wanted)
        if wanted.kind == self._pipeline.guidance.kind:
            self._pipeline.set_guidance(wanted)

    def _want(self, steps: tuple[int, ...], guidance: Guidance) -> None:
        self._pipeline.room.check(len(steps), guidance.kind)
        if self._are_others(steps, guidance):
            self._pipeline.prepare_rows(steps, guidance.kind)
        self.step_list, self.guidance = steps, guidance

    def _are_others(self, steps: tuple[int, ...], guidance: Guidance) -> bool:
        in_effect = self._pipeline.spec.step_list, self._pipeline.guidance.kind
        return (steps, guidance.kind) != in_effect


def _as_step_list(step_list: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(index(step) for step in step_list)
    except TypeError as error:
        raise ControlError(f"a step list is {step_list!r}", "Name indices of timesteps, as in (30, 40)") from error
