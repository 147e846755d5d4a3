"""Options of ``run`` that others act on: what backend and stream are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.cli import run as run_module
from live2diff_trt.cli.main import app
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.stream import Stream
from tests.runtime.made_up_ends import MadeUpSource


@pytest.mark.parametrize(
    ("words", "overlap", "restyled"),
    [
        ((), TensorRTOptions().overlap, False),
        (("--overlap", "on"), True, False),
        (("--overlap", "off"), False, False),
        (("--restyle", "ink.safetensors"), TensorRTOptions().overlap, True),
    ],
)
def test_overlap_is_on_or_off_and_a_style_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], overlap: bool, restyled: bool
) -> None:
    asked: list[tuple[bool, bool]] = []

    def choose(choice: Any, bundle: Path, on_cpu: Any, on_gpu: TensorRTOptions, *, restyled: bool) -> None:
        asked.append((on_gpu.overlap, restyled))
        raise Live2DiffError("that is all that is asked here", "Ask no more")

    monkeypatch.setattr(run_module, "choose_backend", choose)
    assert CliRunner().invoke(app, ["run", str(tmp_path), *words]).exit_code == 1
    assert asked == [(overlap, restyled)]


@pytest.mark.parametrize(
    ("words", "expected"), [((), None), (("--step-list", "20,30,40"), (20, 30, 40)), (("--strength", "0.6"), (20, 35))]
)
def test_a_strength_spreads_as_many_steps_as_the_bundle_has(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: tuple[int, ...] | None
) -> None:
    asked: list[tuple[int, ...] | None] = []

    def open_stream(bundle: Path, *, step_list: tuple[int, ...] | None, **_: Any) -> None:
        asked.append(step_list)
        raise Live2DiffError("that is all that is asked here", "Ask no more")

    monkeypatch.setattr(Stream, "open", open_stream)
    assert CliRunner().invoke(app, ["run", str(tiny_bundle), "--backend", "onnxruntime", *words]).exit_code == 1
    assert asked == [expected]


def test_nothing_between_on_and_off(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(tmp_path), "--overlap", "maybe"], env={"NO_COLOR": "1"})
    assert result.exit_code == 2
    assert "--overlap" in result.output


@pytest.mark.parametrize(
    ("words", "is_live", "expected"),
    [((), False, "all"), ((), True, "live"), (("--pace", "source"), True, "source"), (("--pace", "all"), True, "all")],
)
def test_a_live_source_sets_the_pace_unless_it_is_said(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], is_live: bool, expected: str
) -> None:
    asked: list[str] = []

    def run_at(source: Any, sink: Any, pace: str, note: Any) -> None:
        asked.append(pace)
        raise Live2DiffError("that is all that is asked here", "Ask no more")

    monkeypatch.setattr(run_module, "open_source", lambda name: MadeUpSource(9, is_live=is_live))
    monkeypatch.setattr(run_module, "PacedRun", run_at)
    assert CliRunner().invoke(app, ["run", str(tiny_bundle), "--backend", "onnxruntime", *words]).exit_code == 1
    assert asked == [expected]


@pytest.mark.parametrize(("pace", "all_come"), [("all", True), ("live", False), ("source", True)])
def test_frames_are_dropped_only_live_and_the_table_tells(
    tiny_bundle: Path, tmp_path: Path, pace: str, all_come: bool
) -> None:
    words = ["run", str(tiny_bundle), "--backend", "onnxruntime", "-i", "test-pattern:64x64@500,60", "--pace", pace]
    result = CliRunner().invoke(app, [*words, "-o", f"{tmp_path}/out/"])
    assert result.exit_code == 0, result.output
    written = len(list((tmp_path / "out").iterdir()))
    assert (written == 60) == all_come
    assert ("dropped  " in result.stdout) == (not all_come)
    assert "latency p50 / p99" in result.stdout
