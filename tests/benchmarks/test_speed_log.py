"""The log of what was tried for speed: what is in it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from live2diff_trt.benchmarks.speed_log import SpeedLogError, Step, read_speed_log
from tests.benchmarks.made_results import ROOT

STEP = {"title": "a", "prediction": "", "outcome": "1 ms", "verdict": "kept", "where": "NVIDIA T4"}


def written(folder: Path, contents: object) -> Path:
    path = folder / "speed_log.json"
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents), encoding="utf-8")
    return path


def test_the_committed_log_is_valid() -> None:
    assert len(read_speed_log(ROOT / "benchmarks" / "speed_log.json")) >= 3


def test_steps_are_read_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, {"steps": [STEP, {**STEP, "title": "b", "verdict": "dropped"}]})
    assert read_speed_log(path) == [
        Step("a", "", "1 ms", "kept", "NVIDIA T4"),
        Step("b", "", "1 ms", "dropped", "NVIDIA T4"),
    ]
    assert read_speed_log(tmp_path / "absent.json") == []


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        ("{", "can't be read"),
        ([], "can't be read"),
        ({"steps": [{"title": "a"}]}, "a step in"),
        ({"steps": [{**STEP, "outcome": 1}]}, "a step in"),
        ({"steps": [{**STEP, "verdict": "good"}]}, "the verdict on 'a'"),
        ({"steps": [{**STEP, "outcome": " "}]}, "lacks outcome"),
    ],
)
def test_what_does_not_say_enough_is_refused(tmp_path: Path, contents: object, problem: str) -> None:
    with pytest.raises(SpeedLogError, match=problem):
        read_speed_log(written(tmp_path, contents))
