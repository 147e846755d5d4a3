"""Held-out figures: measured on the stream's own pictures, told in tables, and held against what is claimed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from live2diff_trt.export.presets import TINY
from live2diff_trt.export.trained_weights import TrainedWeights
from live2diff_trt.training.__main__ import main
from live2diff_trt.training.claims import find_broken_claims
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.evaluate import Evaluation, Result, list_contestants
from live2diff_trt.training.footage import CLIPS, PICTURES, SHOWN
from live2diff_trt.training.long_stream import find_drift_db, stream_long
from live2diff_trt.training.networks import Networks
from live2diff_trt.training.report import write_report
from live2diff_trt.training.strip import film_footage
from live2diff_trt.training.styled_clip import encode_clip, find_quality, follow_clip, make_styled, make_wanted
from live2diff_trt.training.styles import STYLES
from tests.training.conftest import make_shot

SKETCH = STYLES[0]


@pytest.fixture(scope="module")
def networks(smoke_run: Path) -> Networks:
    return Networks.load(TINY, TrainedWeights(smoke_run), torch.device("cpu"))


def make_result(contestant: str, steps: int = 2, psnr_db: float = 20, flicker: float = 1e-3) -> Result:
    return Result(contestant, "sketch", steps, psnr_db, 0.8, flicker, 5e-4)


def make_evaluation() -> Evaluation:
    cached = [make_result("cache", steps, 20 - 0.1 * abs(steps - 2)) for steps in range(1, 5)]
    others = [
        make_result("cache masked", psnr_db=19, flicker=2e-3),
        make_result("future frames", psnr_db=20.1),
        make_result("twin", psnr_db=19.5, flicker=1.5e-3),
        make_result("untrained", psnr_db=6, flicker=1e-2),
    ]
    return Evaluation((*cached, *others), {"sketch": 0.1}, 500)


def test_figures_that_bear_the_claims_out() -> None:
    assert find_broken_claims(make_evaluation()) == []


@pytest.mark.parametrize(
    ("worse", "message"),
    [
        (make_result("cache masked", psnr_db=21, flicker=2e-3), "less like its targets than cache masked"),
        (make_result("twin", psnr_db=19, flicker=1.1e-3), "flicker with the cache is 0.91 of that of twin"),
        (make_result("untrained", psnr_db=18), "training made the network 2.00 dB more like"),
        (make_result("cache", 4, psnr_db=15), "T = 4 is 5.00 dB less like"),
    ],
)
def test_a_claim_that_is_not_borne_out_is_named(worse: Result, message: str) -> None:
    good = make_evaluation()
    kept = [one for one in good.results if (one.contestant, one.steps) != (worse.contestant, worse.steps)]
    (claim,) = find_broken_claims(replace(good, results=(*kept, worse)))
    assert message in claim


def test_drift_is_named() -> None:
    (claim,) = find_broken_claims(replace(make_evaluation(), drift_db={"neon": 2.0}))
    assert claim == "neon lost 2.00 dB in 500 frames, more than 0.5"


def test_figures_are_read_back() -> None:
    assert Evaluation.from_json(json.loads(json.dumps(make_evaluation().to_json()))) == make_evaluation()


def test_tables_hold_every_contestant() -> None:
    report = write_report(make_evaluation())
    assert "| cache | 2 | 20.00 dB | 0.800 | 1.00 |" in report
    assert "| the filters themselves |  |  |  | 0.50 |" in report
    assert "| sketch | 0.10 dB |" in report


def test_everyone_is_compared(networks: Networks) -> None:
    found = [(one.name, one.sight, one.steps) for one in list_contestants(networks, networks, networks)]
    assert found == [
        *(("cache", "cache", steps) for steps in (1, 2, 3, 4)),
        ("cache masked", "alone", 2),
        ("future frames", "future", 2),
        ("twin", "alone", 2),
        ("untrained", "cache", 2),
    ]


@pytest.mark.usefixtures("one_thread")
def test_a_clip_is_styled_and_measured(networks: Networks) -> None:
    frames = make_shot(6, 12)
    clip, wanted = encode_clip(networks, frames), make_wanted(frames, SKETCH)
    styled = make_styled(networks, clip, SKETCH, TINY.step_list)
    assert styled.shape == frames.shape
    np.testing.assert_array_equal(styled, make_styled(networks, clip, SKETCH, TINY.step_list))
    motions = follow_clip(frames)
    quality, ideal = find_quality(styled, wanted, motions), find_quality(wanted, wanted, motions)
    assert ideal.psnr_db == np.inf
    assert ideal.ssim == pytest.approx(1)
    assert quality.psnr_db < 40
    assert quality.flicker > 0


@pytest.mark.usefixtures("one_thread")
def test_a_long_stream_is_the_same_clip_frame_by_frame(networks: Networks) -> None:
    frames = make_shot(6, 12)
    likeness = stream_long(networks, frames, SKETCH, 12)
    clip, wanted = encode_clip(networks, frames), make_wanted(frames, SKETCH)
    styled = make_styled(networks, clip, SKETCH, TINY.step_list)
    streamed = np.mean(likeness[8:])
    assert streamed == pytest.approx(find_quality(styled, wanted, follow_clip(frames)).psnr_db, abs=0.05)


def test_drift_is_the_loss_from_the_first_lap_to_the_last() -> None:
    lap = [20.0, 21.0, 20.0, 19.0]  # there and back over 3 frames
    assert find_drift_db(lap * 5, 3) == 0
    assert find_drift_db([*lap, *lap, *[value - 1 for value in lap]], 3) == pytest.approx(1)


@pytest.mark.usefixtures("one_thread")
def test_commands_write_figures_tables_and_the_strip(footage: Path, smoke_run: Path, tmp_path: Path) -> None:
    common = ["--footage", str(footage), "--weights", str(smoke_run)]
    figures = tmp_path / "figures.json"
    assert main(["evaluate", *common, "--out", str(figures), "--frames", "12", "--drift-frames", "44"]) == 0
    assert len(json.loads(figures.read_text())["results"]) == 7 * len(STYLES)
    assert (tmp_path / "figures.md").read_text().startswith("| what a frame sees | T |")
    for shown in (["--held-out"], ["--shots", "first", "still"]):
        strip = tmp_path / f"strip{shown[0]}.png"
        assert main(["strip", *common, "--out", str(strip), *shown]) == 0
        assert strip.read_bytes().startswith(b"\x89PNG")


def test_what_a_strip_shows_moves_and_is_free_to_show() -> None:
    shots = {"clip": make_shot(1, 30, 96), "still": make_shot(2, 1, 96)}
    for frames in film_footage(shots, ["clip", "still"], 64, 64).values():
        assert frames.shape == (24, 64, 64, 3)
        assert (np.diff(frames.astype(int), axis=0) != 0).any(axis=(1, 2, 3)).all()
    with pytest.raises(TrainingError, match=r"no shot lost.*clip, still"):
        film_footage(shots, ["lost"], 64, 64)
    assert {f"{origin.name}-0" for origin in (*CLIPS, *PICTURES)} >= set(SHOWN)


def test_errors_end_with_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["--footage", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["train", *words]) == 1
    assert "Make it with `python -m live2diff_trt.training pack" in caplog.text
