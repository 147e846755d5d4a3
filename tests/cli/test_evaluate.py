"""``live2diff-trt evaluate`` as a person runs it, on real clips with known answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.cli.main import app
from live2diff_trt.evaluation.errors import EvaluationError
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.source import open_source
from tests.evaluation.made_clips import flicker, pan, shuffle, write_clip

CLIP = "carphone_pristine.mp4"
FRAMES = 20
MeansOf = Callable[[list[Image]], dict[str, Any]]


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def figures(*arguments: object) -> dict[str, Any]:
    """Evaluate and return the figures that were printed."""
    result = evaluate(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def refused(*arguments: object) -> Live2DiffError:
    result = evaluate(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, Live2DiffError)
    return result.exception


def row(result: Result, name: str) -> list[str]:
    (line,) = [line for line in result.stdout.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


@pytest.fixture(scope="module")
def frames(clip: Callable[[str], Path]) -> list[Image]:
    """All frames of a talking head in a car: 120 of 176x144, without a cut."""
    with open_source(str(clip(CLIP))) as source:
        return [frame.image for frame in source]


@pytest.fixture
def known(clip: Callable[[str], Path], tiny_bundle: Path, tmp_path: Path) -> MeansOf:
    """Evaluate an output made of that clip and return the means."""

    def of_output(frames: list[Image]) -> dict[str, Any]:
        output = write_clip(tmp_path / "out", frames)
        options = ("--bundle", tiny_bundle, "--threads", 1)
        means: dict[str, Any] = figures("-i", clip(CLIP), "-o", output, *options)["means"]
        return means

    return of_output


def test_an_identical_clip(known: MeansOf, frames: list[Image]) -> None:
    means = known(frames)
    assert means["warp_error"] == means["input_warp_error"] == pytest.approx(0.00029, rel=0.1)
    assert means["similarity"] == means["input_similarity"] == pytest.approx(0.931, abs=0.001)
    assert means["visible"] == pytest.approx(0.90, abs=0.02)
    assert means["depth_error"] == 0


def test_a_flickering_clip(known: MeansOf, frames: list[Image]) -> None:
    means = known(flicker(frames, 8))
    # Brighter and darker by 8: (16 / 255)² more, but for values that are clipped.
    assert means["warp_error"] - means["input_warp_error"] == pytest.approx((16 / 255) ** 2, rel=0.03)
    assert means["warp_error"] == pytest.approx(0.0042, rel=0.05)
    assert means["input_warp_error"] == pytest.approx(0.00029, rel=0.1)
    assert means["similarity"] == pytest.approx(0.892, abs=0.002)
    assert means["depth_error"] > 0


def test_a_shuffled_clip(known: MeansOf, frames: list[Image]) -> None:
    means = known(shuffle(frames))
    assert means["warp_error"] == pytest.approx(0.0154, rel=0.05)
    assert means["input_warp_error"] == pytest.approx(0.00029, rel=0.1)
    assert means["similarity"] == pytest.approx(0.660, abs=0.002)
    assert means["depth_error"] > 0


def test_a_video_is_compared_with_the_video_it_was_made_from(clip: Callable[[str], Path], tmp_path: Path) -> None:
    with open_source(str(clip("bikes.mp4"))) as source:
        seen = [reference.preprocess(frame.image, 256, 128) for frame in islice(source, FRAMES)]
    output = write_clip(tmp_path / "out.mp4", [reference.postprocess(picture) for picture in seen])
    result = evaluate("--input", clip("bikes.mp4"), "--output", output, "--frames", FRAMES)
    assert result.exit_code == 0, result.exception
    assert f"{FRAMES} frames, 256x128" in result.stdout
    _, of_output, worst, of_input = row(result, "warp error")
    assert float(of_output) == pytest.approx(float(of_input), abs=1e-4)  # encoded with loss
    assert "at frame" in worst
    assert row(result, "similarity of neighbours")[1].startswith("0.9")
    assert row(result, "pixels followed")[1].endswith("%")
    assert "depth error" not in result.stdout
    assert "structure is not compared" in result.stderr
    assert "--bundle" in result.stderr
    assert f"{FRAMES}/{FRAMES}" in result.stderr


def test_with_a_bundle_structure_is_a_row(tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in", pan(3, size=(64, 64), seed=1))
    output = write_clip(tmp_path / "out", pan(3, size=(64, 64), seed=2))
    result = evaluate("-i", source, "-o", output, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.exception
    assert float(row(result, "depth error")[1]) > 0
    assert "structure is not compared" not in result.stderr


def test_figures_are_printed_frame_by_frame_and_alike_every_time(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = (write_clip(tmp_path / name, pan(4, size=(64, 64))) for name in ("in", "out"))
    arguments = ("-i", source, "-o", output, "-b", tiny_bundle)
    printed = figures(*arguments)
    assert (printed["size"], printed["frames"]) == ([64, 64], 4)
    assert (printed["input"], printed["output"]) == (str(source), str(output))
    assert printed["bundle"]["name"] == "tiny"
    assert len(printed["bundle"]["digest"]) == 64
    assert [frame["time"] for frame in printed["per_frame"]] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert [frame["depth_error"] for frame in printed["per_frame"]] == [0] * 4
    warp_errors = [frame["warp_error"] for frame in printed["per_frame"]]
    assert warp_errors[0] is None
    assert np.mean(warp_errors[1:]) == pytest.approx(printed["means"]["warp_error"])
    assert figures(*arguments) == printed


def test_scenes_that_change_are_left_out_and_counted(tmp_path: Path) -> None:
    frames = pan(2, size=(64, 64), seed=1) + pan(2, size=(64, 64), seed=2)
    source, output = (write_clip(tmp_path / name, frames) for name in ("in", "out"))
    result = evaluate("-i", source, "-o", output)
    assert row(result, "pixels followed")[2] == "scene changes left out: 1"


def test_clips_of_unlike_length_are_refused_at_once(clip: Callable[[str], Path], tmp_path: Path) -> None:
    output = write_clip(tmp_path / "out", pan(5))
    error = refused("-i", clip("bikes.mp4"), "-o", output)
    assert "the input has 250 frames and the output 5" in str(error)
    assert error.remedy.endswith("--frames 5")


def test_without_opencv_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "live2diff_trt.evaluation.optical_flow", raising=False)
    error = refused("-i", tmp_path, "-o", tmp_path)
    assert isinstance(error, EvaluationError)
    assert "live2diff-trt[evaluate]" in error.remedy
