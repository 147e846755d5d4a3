"""The loop: a budget is kept, averages judge, and a checkpoint is gone on from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor, nn

from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.loop import Budget, Loop, LoopOptions, RunningMeans, TrainingLog
from live2diff_trt.training.step_timer import StageClock


class Task:
    """Learn to add up two numbers."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.line = nn.Linear(2, 1)
        self.modules = nn.ModuleDict({"line": self.line})
        self.batches = 0

    def draw(self, random: Random, clock: StageClock) -> Tensor:
        self.batches += 1
        return torch.randn(16, 2) + random.random()

    def find_losses(self, batch: Tensor, clock: StageClock) -> Mapping[str, Tensor]:
        return {"error": (self.line(batch) - batch.sum(dim=1, keepdim=True)).square().mean()}


def make_loop(task: Task, folder: Path, steps: int, minutes: float = 1e6, pause_at: float | None = None) -> Loop:
    options = LoopOptions("sums", Budget(minutes, steps), rate=0.05, log_every=50, pause_at=pause_at)
    return Loop(task.modules, options, TrainingLog(folder / "log.jsonl"), folder)


def read_events(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    task = Task()
    weight = task.line.weight
    make_loop(task, tmp_path, steps=400).run(task, lambda: {"weight": weight[0, 0].item()})
    events = read_events(tmp_path)
    assert [event["step"] for event in events] == list(range(50, 401, 50))
    assert events[-1]["error"] < 0.01 * events[0]["error"]
    assert task.batches == 400
    assert task.line.weight.tolist()[0] == pytest.approx([1, 1], abs=0.2)  # an average lags behind
    assert events[-1]["weight"] == pytest.approx(weight[0, 0].item(), abs=1e-3)


def test_it_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through = Task()
    assert make_loop(through, tmp_path / "through", steps=100).run(through)

    first, now = Task(), iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now) * 1e-3)
    assert not make_loop(first, tmp_path / "paused", steps=100, pause_at=0.3).run(first)
    monkeypatch.undo()
    assert 0 < first.batches < 90

    second = Task()
    loop = make_loop(second, tmp_path / "paused", steps=100)
    assert loop.step == first.batches
    assert loop.run(second)
    assert second.batches == 100 - first.batches
    torch.testing.assert_close(second.line.weight, through.line.weight, rtol=0, atol=0)


def test_means_are_of_the_steps_since_they_were_last_taken() -> None:
    means = RunningMeans()
    for value in (1.0, 2.0, 6.0):
        means.add({"error": torch.tensor(value)})
    assert means.take() == {"error": 3.0}
    means.add({"error": torch.tensor(5.0)})
    assert means.take() == {"error": 5.0}


def test_what_is_finished_is_not_trained_on(tmp_path: Path) -> None:
    first = Task()
    make_loop(first, tmp_path, steps=10).run(first)
    again = Task()
    make_loop(again, tmp_path, steps=10).run(again)
    assert again.batches == 0
    torch.testing.assert_close(again.line.weight, first.line.weight, rtol=0, atol=0)


def test_what_a_log_lacks_at_the_end_is_written(tmp_path: Path) -> None:
    task = Task()
    make_loop(task, tmp_path, steps=70).run(task)
    assert [event["step"] for event in read_events(tmp_path)] == [50, 70]


def test_losses_that_are_no_numbers_end_it(tmp_path: Path) -> None:
    class Astray(Task):
        def find_losses(self, batch: Tensor, clock: StageClock) -> Mapping[str, Tensor]:
            return {"error": self.line.weight.sum() * float("nan")}

    task = Astray()
    with pytest.raises(TrainingError, match="sums went astray before step 50"):
        make_loop(task, tmp_path, steps=100).run(task)


def test_no_minutes_no_steps(tmp_path: Path) -> None:
    task = Task()
    make_loop(task, tmp_path, steps=1000, minutes=1e-9).run(task)
    assert task.batches <= 1


class Listed(Task):
    """Lists what is drawn."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__()
        self._numbers = numbers

    def draw(self, random: Random, clock: StageClock) -> Tensor:
        self._numbers += [random.random(), float(torch.rand(()))]
        return super().draw(random, clock)


def test_networks_may_draw_the_same_batches(tmp_path: Path) -> None:
    drawn: dict[str, list[float]] = {}
    for name, draws in (("one", ""), ("twin", "one"), ("other", "")):
        task = Listed(drawn.setdefault(name, []))
        options = LoopOptions(name, Budget(1e6, 3), rate=0.05, draws=draws)
        Loop(task.modules, options, TrainingLog(tmp_path / "log.jsonl"), tmp_path).run(task)
    assert drawn["twin"] == drawn["one"]
    assert set(drawn["other"]).isdisjoint(drawn["one"])


def test_the_rate_rises_then_falls_to_nothing() -> None:
    options = LoopOptions("any", Budget(10), rate=1.0)
    assert options.rate_at(0, 0) == pytest.approx(0.04)
    assert options.rate_at(0, 1000) == 1
    assert options.rate_at(0.5, 1000) == pytest.approx(0.5)
    assert options.rate_at(1, 1000) == pytest.approx(0)


def test_a_budget_is_used_by_time_or_by_steps() -> None:
    assert Budget(10).share_used(300, 10**6) == 0.5
    assert Budget(10, 100).share_used(60, 50) == 0.5
    assert Budget(10, 100).share_used(6000, 0) == 1
