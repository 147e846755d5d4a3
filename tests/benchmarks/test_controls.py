"""A run that uses every control: on the CPU and on an emulated GPU. No time means anything here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live2diff_trt.benchmarks.bench_controls import TimedPart, time_controls
from live2diff_trt.benchmarks.control_script import list_parts
from live2diff_trt.benchmarks.measures import Extent, measure
from live2diff_trt.benchmarks.opened_rows import Place
from live2diff_trt.benchmarks.point import BASES
from live2diff_trt.benchmarks.printed_results import list_waits
from live2diff_trt.benchmarks.results_file import ResultsFile, read_results
from live2diff_trt.benchmarks.rows import Label
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.cuda_session import require_gpu
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_gpu import build_emulated_plans, install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache
from tests.runtime.gpu_plans import build_for_gpu

POINT = replace(BASES["tiny"], seed=3)
TICKS = 4
NOT_CONTROLS = {"begin", "style", "open", "close", "run", "flush", "spec", "guidance", "full_ahead", "empty_frame"}


@pytest.fixture(scope="module")
def results(tiny_bundle: Path, other_bundle: Path) -> ResultsFile:
    measured = ResultsFile()
    place = Place(tiny_bundle, None, None)
    measure(measured, POINT, place, ("onnxruntime", "tensorrt-split"), ("controls",), Extent(TICKS, style=other_bundle))
    return measured


def test_every_control_of_a_stream_is_used(tiny_bundle: Path) -> None:
    used = "".join(inspect.getsource(list_parts))
    controls = {name for name, _ in inspect.getmembers(Stream) if not name.startswith("_")} - NOT_CONTROLS
    assert {name for name in controls if f"stream.{name}(" not in used} == set()
    spec = Bundle.open(tiny_bundle, ()).spec
    plain, restyled = ([part.name for part in list_parts(spec, style)] for style in (None, tiny_bundle))
    assert len(restyled) == len(set(restyled))
    assert [name for name in restyled if name not in plain] == ["style", "style_back"]


def test_every_part_is_told_with_its_call_and_its_ticks(
    results: ResultsFile, tiny_bundle: Path, other_bundle: Path
) -> None:
    parts = list_parts(Bundle.open(tiny_bundle, ()).spec, other_bundle)
    assert [entry.name for entry in results.entries] == [f"control/{part.name}" for part in parts]
    notes = {entry.name.removeprefix("control/"): entry.notes for entry in results.entries}
    for part, entry in zip(parts, results.entries, strict=True):
        assert entry.samples == len(entry.notes["delivered"]) == TICKS + part.frames
        assert entry.notes["call_ms"] >= 0
    assert notes["begin"]["delivered"][:8] == [0] * 7 + [8]
    assert notes["rewarm"]["delivered"][:8] == [1] + [0] * 6 + [8]  # the frame on its way is finished first
    assert notes["cut"]["delivered"][:8] == [1] + [0] * 6 + [8]
    assert notes["pause"]["delivered"] == [2, 1, 1, 1]
    kinds = {name: notes[name]["guidance"] for name in ("begin", "guidance_full", "negative_prompt", "guidance_none")}
    assert kinds == {"begin": "self", "guidance_full": "full", "negative_prompt": "full", "guidance_none": "none"}
    assert [notes[name]["t"] for name in ("step_list", "more_steps", "strength", "fewer_steps")] == [2, 3, 3, 2]
    assert notes["style_back"]["style_apart"] > 1
    assert "tensorrt-split" in results.not_run


def test_a_style_that_leaves_something_behind_is_not_measured(
    tiny_bundle: Path, other_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clips = Stream.run, iter(range(3))

    def leave_something(self: Stream, source: Any, **options: Any) -> Iterator[FinishedFrame]:
        clip = next(clips)
        for frame in run(self, source, **options):
            image = np.array(frame.image)
            image[0, 0, 0] ^= clip == 2
            yield replace(frame, image=image)

    monkeypatch.setattr(Stream, "run", leave_something)
    label, options = Label("onnxruntime", ""), OnnxRuntimeOptions()
    with pytest.raises(MeasurementError, match="frames differ once a style was there"):
        time_controls(ResultsFile(), POINT, label, tiny_bundle, options, ticks=2, style=other_bundle)


def test_the_results_are_a_results_file_and_a_table(results: ResultsFile, tmp_path: Path) -> None:
    assert len(read_results(results.write(tmp_path)).entries) == len(results.entries)
    lines = list(list_waits(results.entries))
    assert len(lines) == 1 + len(results.entries)
    assert lines[0].split()[:2] == ["control", "backend"]


def test_a_tick_waited_that_took_longer_than_those_in_which_all_is_settled() -> None:
    part = TimedPart("prompt", 0.1, [9.0, 2.0, 4.0, 2.1, 2.0, 1.9], repeats=[False] * 6)
    assert part.usual_ms == 2.0
    assert part.waits_ms == {0: 7.0, 2: 2.0}
    assert TimedPart("pause", 0.0, [0.5, 0.01, 0.01], repeats=[True] * 3).waits_ms == {}
    skipping = TimedPart("filter", 0.0, [0.1, 0.1, 0.1, 2.0, 0.1, 2.2], repeats=[True] * 3 + [False, True, False])
    assert (skipping.usual_ms, skipping.waits_ms) == (2.1, {})


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [False, True])
def test_it_runs_on_an_emulated_gpu(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    build_emulated_plans(tiny_bundle, tmp_path, "split", 2)
    graphs, results = GraphCache(), ResultsFile()
    install_emulated_gpu(monkeypatch, graphs)
    options = TensorRTOptions(plans=tmp_path, overlap=overlap)
    time_controls(results, POINT, Label("tensorrt-rtx", "split"), tiny_bundle, options, ticks=2)
    graphs.close()
    assert {entry.form for entry in results.entries} == {"split"}


@pytest.mark.gpu
def test_it_runs_on_a_gpu(tiny_bundle: Path, tmp_path: Path) -> None:
    build_for_gpu(tiny_bundle, tmp_path, "split")
    measured = ResultsFile()
    place = Place(tiny_bundle, tmp_path, require_gpu(0))
    measure(measured, POINT, place, ("tensorrt-split", "tensorrt-overlap"), ("controls",), Extent(12))
    assert {entry.form for entry in measured.entries} == {"split", "split+overlap"}
    assert all(max(entry.notes["waits_ms"].values(), default=0) < 2000 for entry in measured.entries)
