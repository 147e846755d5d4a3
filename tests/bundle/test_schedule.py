"""The LCM schedule against its known constants and against what the reference network recorded."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import (
    ScheduleSpec,
    check_max_steps,
    check_step_list,
    lcm_timesteps,
    make_step_table,
    spread_steps,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "tiny_a"
SCHEDULE = ScheduleSpec()
RECORDED_STEPS = {1: (30,), 2: (30, 40), 3: (30, 36, 42)}
rising_lists = st.lists(st.integers(0, 49), min_size=1, max_size=8, unique=True).map(sorted)


def multiply_alphas(timestep: int) -> float:
    """Multiply 1 − beta up to a timestep, the slow way."""
    product = 1.0
    for step in range(timestep + 1):
        product *= 1 - (0.00085 + (0.012 - 0.00085) * step / 999)
    return product


def test_lcm_walks_fifty_timesteps_from_999_down_to_19() -> None:
    assert lcm_timesteps(SCHEDULE).tolist() == list(range(999, 18, -20))


def test_timesteps_are_32_bit_integers_and_constants_are_float32() -> None:
    table = make_step_table((30, 40), SCHEDULE)
    assert table.timesteps.dtype == np.int32
    for values in (table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out):
        assert values.dtype == np.float32
        assert values.shape == (2,)


@pytest.mark.parametrize(
    ("step_list", "timesteps"),
    [((30, 40), [399, 199]), ((30, 36, 42), [399, 279, 159]), ((0, 16, 32, 45), [999, 679, 359, 99])],
)
def test_a_step_list_picks_timesteps(step_list: tuple[int, ...], timesteps: list[int]) -> None:
    assert make_step_table(step_list, SCHEDULE).timesteps.tolist() == timesteps


def test_known_constants_of_the_usual_two_steps() -> None:
    table = make_step_table((30, 40), SCHEDULE)
    assert table.sqrt_alpha == pytest.approx([0.53986, 0.82179], abs=5e-6)
    assert table.c_out == pytest.approx([1, 1], abs=1e-6)
    assert table.c_skip == pytest.approx([0.25 / (3990**2 + 0.25), 0.25 / (1990**2 + 0.25)], rel=1e-6)
    assert 1e-8 < table.c_skip[0] < table.c_skip[1] < 1e-7


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_constants_are_those_the_reference_recorded(steps: int) -> None:
    recorded = load_file(GOLDENS / f"T{steps}.safetensors")
    table = make_step_table(RECORDED_STEPS[steps], SCHEDULE)
    np.testing.assert_array_equal(table.timesteps, recorded["const.sub_timesteps"])
    for name, ours in {
        "alpha_sqrt": table.sqrt_alpha,
        "beta_sqrt": table.sqrt_one_minus_alpha,
        "c_out": table.c_out,
        "c_skip": table.c_skip,
    }.items():
        np.testing.assert_allclose(ours, recorded[f"const.{name}"], rtol=1e-6, atol=0, err_msg=name)


@given(rising_lists)
def test_later_steps_are_less_noisy(step_list: list[int]) -> None:
    table = make_step_table(step_list, SCHEDULE)
    assert np.all(np.diff(table.timesteps) < 0)
    assert np.all(np.diff(table.sqrt_alpha) > 0)
    assert np.all(np.diff(table.sqrt_one_minus_alpha) < 0)
    np.testing.assert_allclose(table.sqrt_alpha**2 + table.sqrt_one_minus_alpha**2, 1, rtol=1e-6)


@given(rising_lists)
def test_alpha_is_the_product_of_all_earlier_ones(step_list: list[int]) -> None:
    table = make_step_table(step_list, SCHEDULE)
    expected = [math.sqrt(multiply_alphas(999 - 20 * index)) for index in step_list]
    np.testing.assert_allclose(table.sqrt_alpha, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "step_list", [[], list(range(9)), [-1], [50], [10, 50], [40, 30], [30, 30], [10, 30, 20]], ids=str
)
def test_a_bad_step_list_is_refused_by_name(step_list: list[int]) -> None:
    for refuse in (check_step_list, make_step_table):
        with pytest.raises(SpecError, match=re.escape(str(step_list))):
            refuse(step_list, SCHEDULE)


@given(rising_lists)
def test_every_rising_list_in_range_is_accepted(step_list: list[int]) -> None:
    check_step_list(step_list, SCHEDULE)
    assert len(make_step_table(step_list, SCHEDULE).timesteps) == len(step_list)


@pytest.mark.parametrize(
    ("strength", "steps", "expected"),
    [
        (0.4, 1, (30,)),
        (0.4, 2, (30, 40)),
        (0.4, 3, (30, 36, 43)),
        (1, 4, (0, 12, 25, 37)),
        (0.05, 2, (48, 49)),
        (0.02, 1, (49,)),
        (0.16, 8, tuple(range(42, 50))),
    ],
)
def test_a_strength_is_a_step_list(strength: float, steps: int, expected: tuple[int, ...]) -> None:
    assert spread_steps(strength, steps, SCHEDULE) == expected


schedules = st.sampled_from([8, 20, 50, 100, 1000]).map(lambda original: ScheduleSpec(original_steps=original))


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 8), schedules)
def test_steps_are_spread_evenly_or_refused(strength: float, steps: int, schedule: ScheduleSpec) -> None:
    first = round(schedule.original_steps * (1 - strength))
    if schedule.original_steps - first < steps:
        with pytest.raises(SpecError, match=f"for {steps} steps"):
            spread_steps(strength, steps, schedule)
        return
    step_list = spread_steps(strength, steps, schedule)
    check_step_list(step_list, schedule)
    assert len(step_list) == steps
    assert step_list[0] == first
    gaps = np.diff([*step_list, schedule.original_steps])
    assert gaps.max() - gaps.min() <= 1


@given(st.integers(1, 8), schedules)
def test_strength_1_begins_at_the_noisiest(steps: int, schedule: ScheduleSpec) -> None:
    assert spread_steps(1, steps, schedule)[0] == 0


@given(st.integers(1, 8), st.floats(0.16, 1), st.floats(0.16, 1))
def test_more_strength_is_more_noise_in_every_row(steps: int, one: float, other: float) -> None:
    weaker, stronger = (spread_steps(strength, steps, SCHEDULE) for strength in sorted((one, other)))
    assert all(noisier <= cleaner for noisier, cleaner in zip(stronger, weaker, strict=True))


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, math.nan, math.inf, -math.inf])
def test_a_strength_out_of_range_is_refused_by_name(strength: float) -> None:
    with pytest.raises(SpecError, match=rf"strength {strength} leaves the range.*as in 0\.4"):
        spread_steps(strength, 2, SCHEDULE)


@pytest.mark.parametrize("steps", [-1, 0, 9])
def test_a_strength_is_for_1_to_8_steps(steps: int) -> None:
    with pytest.raises(SpecError, match="Name 1 to 8 steps"):
        spread_steps(0.5, steps, SCHEDULE)


def test_the_least_strength_for_the_steps_is_named() -> None:
    with pytest.raises(SpecError, match=r"leaves 1 of LCM's 50 timesteps for 3 steps\. Use 0\.06 or more"):
        spread_steps(0.02, 3, SCHEDULE)
    assert spread_steps(0.06, 3, SCHEDULE) == (47, 48, 49)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0), (-0.1, 0.1)])
def test_betas_that_make_no_schedule_are_refused(start: float, end: float) -> None:
    with pytest.raises(SpecError, match=re.escape(str(end))):
        ScheduleSpec(beta_start=start, beta_end=end)


@pytest.mark.parametrize("original_steps", [0, -1, 7, 1001])
def test_steps_that_do_not_divide_the_training_timesteps_are_refused(original_steps: int) -> None:
    with pytest.raises(SpecError, match=f"1000 training timesteps do not divide into {original_steps} "):
        ScheduleSpec(original_steps=original_steps)


@pytest.mark.parametrize(("max_steps", "steps"), [(1, 1), (2, 2), (8, 2), (8, 8)])
def test_there_may_be_room_for_more_steps(max_steps: int, steps: int) -> None:
    check_max_steps(max_steps, steps)


@pytest.mark.parametrize(("max_steps", "steps"), [(0, 1), (1, 2), (9, 2)])
def test_room_for_fewer_steps_or_more_than_eight_is_refused(max_steps: int, steps: int) -> None:
    with pytest.raises(SpecError, match=f"Use {steps} to 8"):
        check_max_steps(max_steps, steps)
