"""Made-up footage, and networks that were trained on it for a moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from live2diff_trt.training.footage import Frames
from live2diff_trt.training.packed import HELD_OUT_FILE, TRAINING_FILE
from live2diff_trt.training.pictures import to_frames
from live2diff_trt.training.scenes import add_things, draw_colour, draw_thing, make_gradients
from live2diff_trt.training.train import LOG_FILE, Trainer, TrainingOptions

STEPS = 50


def make_shot(seed: int, frames: int = 24, side: int = 64) -> Frames:
    random = Random(seed)
    colours = draw_colour(random), draw_colour(random)
    background = make_gradients([random.uniform(0, 6)], [colours], side, side, torch.device("cpu"))
    things = [draw_thing(random, frames) for _ in range(4)]
    return to_frames(add_things(background.expand(-1, frames, -1, -1, -1), [things])[0])


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packed footage, 64x64."""
    folder = tmp_path_factory.mktemp("footage")
    np.savez(folder / TRAINING_FILE, allow_pickle=False, first=make_shot(1), second=make_shot(2), still=make_shot(3, 1))
    np.savez(folder / HELD_OUT_FILE, allow_pickle=False, judge=make_shot(4, 14))
    return folder


@pytest.fixture(scope="session")
def smoke_run(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a training of a few steps on the CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained")
    Trainer(smoke_options(footage, out)).run()
    yield out
    torch.set_num_threads(threads)


def smoke_options(footage: Path, out: Path, **changes: Any) -> TrainingOptions:
    options: dict[str, Any] = {"minutes": 1e6, "steps": STEPS, "device": "cpu", "clips": 1, "frames": 10}
    options |= {"width": 64, "height": 64, "judge_every": STEPS // 2}
    return TrainingOptions(footage, out, **{**options, **changes})


def read_log(out: Path, network: str) -> list[dict[str, Any]]:
    lines = (out / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event.get("network") == network]
