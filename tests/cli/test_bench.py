"""``live2diff-trt bench`` as a person runs it, on a machine without a GPU."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from live2diff_trt.benchmarks import bench_quality, measures, suite
from live2diff_trt.benchmarks.opened_rows import Place
from live2diff_trt.benchmarks.point import BASES, Point
from live2diff_trt.benchmarks.results_file import ResultsError, ResultsFile
from live2diff_trt.benchmarks.rows import ROWS
from live2diff_trt.benchmarks.suite import SuiteOptions, SuiteOutcome
from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.cli.main import app
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from tests.benchmarks.made_results import GPU, make_entry, write_results


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def compared(folder: Path, a_ms: float, b_ms: float, *options: str, **environment: Any) -> Result:
    a = write_results(folder / "a.json", make_entry("frame", a_ms), make_entry("stage/see", 1.0))
    b = write_results(folder / "b.json", make_entry("frame", b_ms), make_entry("stage/tick", 1.0), **environment)
    return bench("compare", a, b, *options)


def test_a_regression_is_marked_and_ends_with_1(tmp_path: Path) -> None:
    result = compared(tmp_path, 16.0, 17.0)
    assert result.exit_code == 1
    assert "slower: frame tensorrt-rtx split 2 512 512 float16: 16.000 → 17.000 ms, × 1.062" in result.stdout
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("│ frame")]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("frame", "tensorrt-rtx", "split", "512x512", "2", "16.000", "17.000", "1.062", "slower"),
    ]
    assert "only in a.json: stage/see" in result.stdout
    assert "only in b.json: stage/tick" in result.stdout
    assert result.stderr == ""


def test_the_threshold_is_an_option(tmp_path: Path) -> None:
    result = compared(tmp_path, 16.0, 17.0, "--threshold", "0.07")
    assert (result.exit_code, "slower:" in result.stdout) == (0, False)
    assert "Nothing is slower by more than 7 %." in result.stdout
    assert compared(tmp_path, 16.0, 16.1).exit_code == 0
    assert compared(tmp_path, 17.0, 16.0, "--threshold", "0").exit_code == 0


def test_other_conditions_are_warned_of(tmp_path: Path) -> None:
    result = compared(tmp_path, 16.0, 16.0, gpu={**GPU, "driver": "590.2"}, versions={"torch": "2.11.0"})
    assert result.exit_code == 0
    warnings = [line.partition("conditions: ")[2] for line in result.stderr.splitlines()]
    assert warnings == ["GPU's driver: 580.1 → 590.2", "tensorrt-rtx-cu13: 1.6.1.120 → none"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    a = write_results(tmp_path / "a.json", make_entry("frame", 16.0))
    other = tmp_path / "other.json"
    other.write_text('{"command": "", "machine": {}}', encoding="utf-8")
    error = bench("compare", a, other).exception
    assert isinstance(error, ResultsError)
    assert "other.json" in error.problem


def test_a_page_of_the_newest_results_or_of_those_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    old = write_results(folder / "nvidia-t4-2026-01-02.json", make_entry("frame", 20.0))
    write_results(folder / "nvidia-t4-2026-02-02.json", make_entry("frame", 10.0), date="2026-02-02")
    result = bench("page")
    assert (result.exit_code, result.stdout.strip()) == (0, "docs/performance.md")
    page = tmp_path / "docs" / "performance.md"
    assert "| tensorrt-rtx split | 100.0 |" in page.read_text(encoding="utf-8")
    assert len(list((tmp_path / "docs" / "plots").iterdir())) == 1
    assert bench("page", old).exit_code == 0
    assert "| tensorrt-rtx split | 50.0 |" in page.read_text(encoding="utf-8")


def test_without_matplotlib_a_page_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = write_results(tmp_path / "a.json", make_entry("frame", 20.0))
    monkeypatch.setitem(sys.modules, "live2diff_trt.benchmarks.plots", None)
    error = bench("page", results, "--docs", tmp_path / "docs").exception
    assert isinstance(error, Live2DiffError)
    assert "live2diff-trt[bench]" in error.remedy


def test_the_suite_is_told_what_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SuiteOptions] = []

    def record(options: SuiteOptions, gpu: object, **_: object) -> SuiteOutcome:
        asked.append(options)
        results = ResultsFile()
        results.add_samples("frame", "torch-eager", None, options.base, [20.0])
        results.not_run["tensorrt-split"] = "it needs a GPU"
        return SuiteOutcome(tmp_path / "results.json", results, {} if len(asked) == 1 else {"base": "it broke"})

    monkeypatch.setattr(suite, "run_suite", record)
    usual = bench("suite", "--work", "work")
    assert usual.exit_code == 0
    assert "results.json" in usual.stdout
    assert "not run: tensorrt-split: it needs a GPU" in usual.stdout
    (row,) = [line for line in usual.stdout.splitlines() if line.startswith("frame")]
    assert row.split() == ["frame", "torch-eager", "64x64", "2", "20.00", "20.00", "tiny,", "tiny"]
    changed = bench(
        *("suite", "--work", "work", "--out", "out", "--preset", "sd15", "--size", "768x512", "--axes", "depth,base"),
        *("--backends", "torch-eager, onnxruntime", "--samples", 5, "--ticks", 9, "--jobs", 6, "--gpus", 2),
        *("--clip", "clip.mp4", "--quality", "one-row:rows=1"),
    )
    assert changed.exit_code == 1  # something failed
    assert asked[0] == SuiteOptions(Path("work"), Path("benchmarks/results"), BASES["tiny"])
    assert asked[1] == SuiteOptions(
        Path("work"),
        Path("out"),
        replace(BASES["sd15"], width=768, height=512),
        ("base", "depth"),
        ("torch-eager", "onnxruntime"),
        samples=5,
        steady_ticks=9,
        jobs=6,
        gpus=2,
        clip=Path("clip.mp4"),
        quality=("one-row:rows=1",),
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--axes", "speed"], "no axis speed"),
        (["--backends", "split"], "no row is called split"),
        (["--quality", "rank=1"], "names no option"),
        (["--size", "100x100"], "multiples of 64"),
    ],
)
def test_the_suite_refuses_what_is_not_there(options: list[str], problem: str) -> None:
    error = bench("suite", "--work", "work", *options).exception
    assert isinstance(error, Live2DiffError)
    assert problem in error.problem


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("unet", ("limits", "unet")),
        ("frame", ("limits", "frame", "latency")),
        ("stages", ("limits", "stages")),
        ("kernels", ("limits", "kernels")),
        ("memory", ("memory",)),
        ("controls", ("controls",)),
    ],
)
def test_one_thing_is_measured_of_one_bundle(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, what: tuple[str, ...]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def record(results: ResultsFile, point: Point, place: object, rows: tuple[str, ...], *rest: Any) -> None:
        asked.append((point, rows, *rest))
        results.add_samples("frame", "torch-eager", None, point, [20.0])

    monkeypatch.setattr(measures, "measure", record)
    result = bench(command, tiny_bundle, "--plans", "plans", "--out", tmp_path)
    assert result.exit_code == 0
    ((point, rows, measured, _),) = asked
    assert point == replace(BASES["tiny"], seed=3)
    chosen = {
        "kernels": ("tensorrt-split",),
        "controls": ("onnxruntime", "tensorrt-split", "tensorrt-overlap"),
    }
    assert rows == chosen.get(command, ROWS)
    assert measured == what
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_start_up_is_measured_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Place] = []

    def record(results: ResultsFile, point: Point, place: Place, rows: object, what: object, _: object) -> None:
        assert what == ("startup",)
        assert not place.bundle.exists()
        assert place.bundle.parent.is_dir()
        places.append(place)

    monkeypatch.setattr(measures, "measure", record)
    assert bench("startup").exit_code == 0
    assert not places[0].bundle.parent.exists()


def test_quality_compares_options(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(bench_quality, "measure_quality", lambda *those, **_: asked.append(those))
    options = ("--option", "one:rows=1", "--option", "two:rows=2")
    assert bench("quality", tiny_bundle, "--clip", "clip.mp4", *options).exit_code == 0
    ((_, point, bundle, plans, clip, usual, named),) = asked
    assert (point.preset, bundle, plans, clip, usual) == (
        "tiny",
        tiny_bundle,
        None,
        Path("clip.mp4"),
        TensorRTOptions(),
    )
    assert named == {"one": TensorRTOptions(rows=1), "two": TensorRTOptions(rows=2)}


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("suite", ("suite", "--work", "work")), ("measures", ("unet", "b")), ("measures", ("startup",))],
)
def test_what_measures_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, f"live2diff_trt.benchmarks.{module}", None)
    error = bench(*arguments).exception
    assert isinstance(error, Live2DiffError)
    assert "live2diff-trt[bench,cuda,export,onnxruntime]" in error.remedy


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = {"torch", "matplotlib", "cuda.core", "live2diff_trt.benchmarks"}
    program = (
        f"import sys, live2diff_trt.cli.bench, live2diff_trt.cli.main; print(sorted({heavy!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
