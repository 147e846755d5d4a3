"""One loop for every network that is trained: a budget in minutes or steps, a log, and a checkpoint to go on from."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.gradients import Batch, FindGradients, Task, choose_gradients
from live2diff_trt.training.step_timer import StepTimer

logger = logging.getLogger(__name__)

Judge: TypeAlias = Callable[[], Mapping[str, float]]
"""Returns figures of held-out footage, for the log."""

_WARM_UP_STEPS = 25
_LONGEST_GRADIENT = 1.0
_AVERAGED_STEPS = 500
"""Steps over which weights are averaged."""


@dataclass(frozen=True)
class Budget:
    """When training ends: after that many minutes of it, or that many steps, whichever is first."""

    minutes: float
    steps: int | None = None

    def share_used(self, seconds: float, steps: int) -> float:
        """Return how much of the budget is used, from 0 to 1."""
        by_steps = 0.0 if self.steps is None else steps / self.steps
        return min(1.0, max(seconds / (60 * self.minutes), by_steps))


@dataclass(frozen=True)
class LoopOptions:
    """How a network is trained.

    Attributes:
        name: in the log, and of the checkpoint.
        budget: when it ends.
        rate: the highest learning rate; it rises in the first steps, and falls to 0 as half a cosine.
        seed: of every step's randomness, with ``draws`` and the step.
        draws: networks of which this is the same draw the same batches; empty: as ``name``.
        log_every: steps between two lines of the log.
        checkpoint_every_s: seconds between two checkpoints.
        pause_at: by ``time.perf_counter``, when to save and stop, whatever is left of the budget; None: never.
        captured: whether gradients are found by CUDA graphs, which takes a GPU.
    """

    name: str
    budget: Budget
    rate: float
    seed: int = 0
    draws: str = ""
    log_every: int = 50
    checkpoint_every_s: float = 60.0
    pause_at: float | None = None
    captured: bool = False

    def rate_at(self, share: float, step: int) -> float:
        """Return the learning rate where that share of the budget is used."""
        return self.rate * min(1.0, (step + 1) / _WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * share))


class TrainingLog:
    """JSON lines, one event each, appended to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **event: Any) -> None:
        """Append one event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        logger.info("%s", ", ".join(f"{key} {value}" for key, value in event.items()))

    def last_step(self, network: str) -> int | None:
        """Return how many steps of a network were logged last; None: none were."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        steps = [event["step"] for event in map(json.loads, lines) if event.get("network") == network]
        return steps[-1] if steps else None


class RunningMeans:
    """Means of losses since they were last taken, added up on their device, which nobody waits for until then.

    Attributes:
        count: how many were added.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step, without gradients."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self.count += 1

    def take(self) -> dict[str, float]:
        """Return the means, and begin anew."""
        means = {name: float(total) / self.count for name, total in self._sums.items()}
        self._sums, self.count = {}, 0
        return means


class Loop:
    """Trains the parameters of modules, step by step, and keeps an average of them.

    It goes on from the checkpoint of its name, if there is one.

    Attributes:
        step: how many were done, those before the checkpoint included.
    """

    def __init__(self, modules: nn.ModuleDict, options: LoopOptions, log: TrainingLog, folder: Path) -> None:
        self._modules = modules
        self._options = options
        self._log = log
        self._path = folder / f"{options.name}.checkpoint.pt"
        parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
        self._parameters = parameters
        self._optimiser = torch.optim.AdamW(
            parameters, lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=parameters[0].is_cuda
        )
        self._average = [parameter.detach().clone() for parameter in parameters]
        self._means = RunningMeans()
        self._timer = StepTimer(parameters[0].device)
        self.step = 0
        self._seconds = 0.0
        self._resume()

    def run(self, task: Task[Batch], judge: Judge | None = None) -> bool:
        """Train until the budget is used, then put the averages in place; return whether it came to that.

        Args:
            task: what is to be learned.
            judge: returns figures of held-out footage, for the log.

        Raises:
            TrainingError: if losses are no longer finite numbers.
        """
        self._modules.train()
        find_gradients = choose_gradients(task, self._parameters, self._options.captured)
        saved_at = time.perf_counter()
        while (share := self._options.budget.share_used(self._seconds, self.step)) < 1:
            started = time.perf_counter()
            if self._options.pause_at is not None and started >= self._options.pause_at:
                self._end(judge)
                return False
            self._means.add(self._take_step(task, find_gradients, self._options.rate_at(share, self.step)))
            if self.step % self._options.log_every == 0:
                self._write_log(judge)
            self._seconds += time.perf_counter() - started
            if time.perf_counter() - saved_at > self._options.checkpoint_every_s:
                self._save()
                saved_at = time.perf_counter()
        self._end(judge)
        self._modules.eval()
        self._put_average()
        return True

    def _end(self, judge: Judge | None) -> None:
        """Write what the log does not have yet, and a checkpoint."""
        if self._means.count:
            self._write_log(judge)
        self._save()

    def _take_step(self, task: Task[Batch], find_gradients: FindGradients, rate: float) -> Mapping[str, Tensor]:
        """Take a step. What is random in it follows from seed and step alone, so that a resumed run is equal."""
        options = self._options
        random = Random(f"{options.seed} {options.draws or options.name} {self.step}")
        torch.manual_seed(random.getrandbits(63))
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with self._timer.step() as clock:
            losses = find_gradients(task.draw(random, clock), clock)
            with clock.stage("optimiser"):
                nn.utils.clip_grad_norm_(self._parameters, _LONGEST_GRADIENT)
                self._optimiser.step()
                self.step += 1
                share = 1 / min(self.step, _AVERAGED_STEPS)
                torch._foreach_lerp_(self._average, [parameter.detach() for parameter in self._parameters], share)
        return losses

    def _write_log(self, judge: Judge | None) -> None:
        means = {name: round(mean, 5) for name, mean in self._means.take().items()}
        if not all(map(math.isfinite, means.values())):
            raise TrainingError(
                f"{self._options.name} went astray before step {self.step}: its losses are {means}",
                f"Go on from {self._path.name} if it is older, or begin anew with another seed",
            )
        timing, started = self._timer.take(), time.perf_counter()
        found = {} if judge is None else {name: round(value, 3) for name, value in self._judge(judge).items()}
        self._log.write(
            network=self._options.name,
            step=self.step,
            minutes=round(self._seconds / 60, 2),
            **timing,
            judge_s=round(time.perf_counter() - started, 2),
            **means,
            **found,
        )
        self._timer.restart()

    def _judge(self, judge: Judge) -> Mapping[str, float]:
        """Judge the averages; training goes on from the weights as they were."""
        latest = [parameter.detach().clone() for parameter in self._parameters]
        self._put_average()
        self._modules.eval()
        with torch.inference_mode():
            found = judge()
        self._modules.train()
        self._put(latest)
        return found

    def _put_average(self) -> None:
        self._put(self._average)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def _save(self) -> None:
        state = {
            "modules": self._modules.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average,
            "step": self.step,
            "seconds": self._seconds,
        }
        scratch = self._path.with_suffix(".partial")
        torch.save(state, scratch)
        scratch.replace(self._path)

    def _resume(self) -> None:
        if not self._path.is_file():
            return
        state = torch.load(self._path, map_location=self._parameters[0].device, weights_only=True)
        self._modules.load_state_dict(state["modules"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average, self.step, self._seconds = state["average"], state["step"], state["seconds"]
        logger.info("%s goes on from step %d", self._options.name, self.step)
