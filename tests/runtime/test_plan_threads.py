"""Calls for many plans: all of them, several at a time, on the device, or the first error."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from live2diff_trt.runtime import plan_threads
from live2diff_trt.runtime.plan_threads import call_per_plan
from tests.runtime.emulated_device import EmulatedGpu

NAMES = [f"segment_{number:03}" for number in range(40)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    gpu = EmulatedGpu()
    monkeypatch.setattr(plan_threads, "Device", lambda device_id: gpu)
    return gpu


@pytest.fixture
def limit_cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda cores: monkeypatch.setattr("os.cpu_count", lambda: cores)


def test_calls_are_made_on_the_device_and_answers_keep_the_plans_order(gpu: EmulatedGpu) -> None:
    answers = call_per_plan(lambda name: (name, gpu.is_current), NAMES, 0)
    assert list(answers.items()) == [(name, (name, True)) for name in NAMES]
    assert not gpu.is_current  # in the caller's thread it stays as it was


@pytest.mark.parametrize(("cores", "threads"), [(3, 3), (100, 16)])
def test_as_many_calls_at_a_time_as_there_are_cores_but_not_more_than_16(
    gpu: EmulatedGpu, limit_cores: Callable[[int], None], cores: int, threads: int
) -> None:
    limit_cores(cores)
    together = threading.Barrier(threads, timeout=20)
    names = NAMES[:threads]
    callers = call_per_plan(lambda _: (together.wait(), threading.get_ident()), names, 0)
    assert len({caller for _, caller in callers.values()}) == threads


def test_the_first_error_is_raised_and_nothing_begins_after_it(
    gpu: EmulatedGpu, limit_cores: Callable[[int], None]
) -> None:
    limit_cores(2)
    begun: list[str] = []
    failed = threading.Event()

    def call(name: str) -> None:
        begun.append(name)
        if name == NAMES[1]:
            failed.set()
            raise ValueError(name)
        assert failed.wait(20)

    with pytest.raises(ValueError, match=NAMES[1]):
        call_per_plan(call, NAMES, 0)
    assert len(begun) < len(NAMES)
    assert not any(thread.name.startswith("plans") for thread in threading.enumerate())
