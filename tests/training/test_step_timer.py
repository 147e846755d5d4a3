"""Step times: the first one apart, stages of a few, and no stage where nothing is measured."""

from __future__ import annotations

import time

import pytest
import torch

from live2diff_trt.training.step_timer import StageClock, StepTimer


def test_a_log_learns_how_fast_steps_are_and_where_their_time_goes() -> None:
    timer = StepTimer(torch.device("cpu"))
    for step in range(20):
        with timer.step() as clock:
            if step == 0:
                time.sleep(0.05)
            with clock.stage("sleep"):
                time.sleep(0.002)
    figures = timer.take()
    assert figures["first_step_s"] >= 0.05
    assert 50 < figures["steps_per_s"] < 500  # the first step is not among them
    assert figures["stage_ms"]["sleep"] == pytest.approx(2, rel=0.5)
    timer.restart()
    with timer.step():
        time.sleep(0.02)
    assert set(timer.take()) == {"steps_per_s"}


def test_a_clock_without_a_device_measures_nothing() -> None:
    clock = StageClock()
    with clock.stage("any"):
        pass
    assert clock.seconds == {}
