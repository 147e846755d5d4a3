"""How fast steps are, and where their time goes, without waiting for the device in more than a few of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_MEASURED = range(10, 15)
"""Steps of a run in which each stage is waited for: the first ones compile and choose kernels."""


class StageClock:
    """Adds up what the stages of a step take, by name, where it is told a device to wait for; else does nothing.

    Attributes:
        seconds: by stage.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside towards a stage."""
        if self._device is None:
            yield
            return
        _wait_for(self._device)
        began = time.perf_counter()
        yield
        _wait_for(self._device)
        self.seconds[name] += time.perf_counter() - began


class StepTimer:
    """Times the steps of a run on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps = 0
        self._first_step_s: float | None = None
        self._stage_s: dict[str, float] = defaultdict(float)
        self.restart()

    @contextmanager
    def step(self) -> Iterator[StageClock]:
        """Count a step; hand out the clock for its stages."""
        clock = StageClock(self._device if self._steps in _MEASURED else None)
        began = time.perf_counter()
        yield clock
        for stage, seconds in clock.seconds.items():
            self._stage_s[stage] += seconds
        self._steps += 1
        self._counted += 1
        if self._steps == 1:
            _wait_for(self._device)
            self._first_step_s = time.perf_counter() - began
            self.restart()

    def restart(self) -> None:
        """Begin to count anew: what was before is no part of the next figure."""
        self._since, self._counted = time.perf_counter(), 0

    def take(self) -> dict[str, Any]:
        """Return figures for the log, once the device was waited for: of steps since the last, of stages when measured.

        ``first_step_s`` and ``stage_ms`` come once: what the first step took, compilation included, and each stage of a
        step, in the mean.
        """
        figures: dict[str, Any] = {"steps_per_s": round(self._counted / (time.perf_counter() - self._since), 2)}
        if self._first_step_s is not None:
            figures["first_step_s"] = round(self._first_step_s, 2)
            self._first_step_s = None
        if self._stage_s and self._steps >= _MEASURED.stop:
            scale = 1e3 / len(_MEASURED)
            figures["stage_ms"] = {name: round(seconds * scale, 2) for name, seconds in self._stage_s.items()}
            self._stage_s = {}
        return figures


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
