"""The denoising steps as the command line and styles name them."""

from __future__ import annotations

import pytest

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import ScheduleSpec
from live2diff_trt.cli.step_options import read_steps

SCHEDULE = ScheduleSpec()
OWN = (30, 36, 42)


@pytest.mark.parametrize(
    ("step_list", "strength", "expected"),
    [(None, None, OWN), ("20,40", None, (20, 40)), (None, 1.0, (0, 16, 33)), (None, 0.06, (47, 48, 49))],
)
def test_a_strength_keeps_the_number_of_steps(
    step_list: str | None, strength: float | None, expected: tuple[int, ...]
) -> None:
    steps = read_steps(step_list, strength)
    steps.check(SCHEDULE)
    assert steps.choose(OWN, SCHEDULE) == expected


def test_a_list_and_a_strength_exclude_each_other() -> None:
    with pytest.raises(SpecError, match="exclude each other"):
        read_steps("30,40", 0.4)


@pytest.mark.parametrize("text", ["", "30,", "30;40", "-1", "30, 40"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not a step list"):
        read_steps(text, None)


@pytest.mark.parametrize(
    ("step_list", "strength", "message"),
    [("40,30", None, "does not rise"), (None, 1.5, "strength 1.5 leaves the range")],
)
def test_what_can_not_be_is_refused_before_the_number_of_steps_is_known(
    step_list: str | None, strength: float | None, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        read_steps(step_list, strength).check(SCHEDULE)
