"""``live2diff-trt bench`` as a person runs it, on a machine without a GPU."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from live2diff_trt.benchmarks.bench_gpu import bench_gpu
from live2diff_trt.benchmarks.results_file import ResultsError
from live2diff_trt.bundle.errors import Live2DiffError, SpecError
from live2diff_trt.cli.main import app
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


def test_gpu_hands_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[inspect.BoundArguments] = []

    def record(*arguments: Any, **options: Any) -> Path:
        calls.append(inspect.signature(bench_gpu).bind(*arguments, **options))
        return tmp_path / "results.json"

    monkeypatch.setitem(sys.modules, "live2diff_trt.benchmarks.bench_gpu", SimpleNamespace(bench_gpu=record))
    defaults = bench("gpu", "sd15", "--plans", "plans")
    changed = bench(
        *("gpu", "sd15", "--plans", "plans", "--preset", "tiny", "--seed", 3, "--forms", "whole,split"),
        *("--samples", 5, "--no-torch-rows", "--out", "out"),
    )
    assert (defaults.exit_code, changed.exit_code) == (0, 0)
    assert "results.json" in defaults.stdout
    usual = {name: one.default for name, one in inspect.signature(bench_gpu).parameters.items()}
    assert calls[0].arguments == {**usual, "bundle": Path("sd15"), "plans": Path("plans")}
    assert calls[1].arguments == {
        "bundle": Path("sd15"),
        "plans": Path("plans"),
        "preset": "tiny",
        "seed": 3,
        "samples": 5,
        "forms": ("split", "whole"),
        "torch_rows": False,
        "out": Path("out"),
    }


def test_gpu_refuses_a_form_that_is_not_known() -> None:
    error = bench("gpu", "sd15", "--plans", "plans", "--forms", "spilt").exception
    assert isinstance(error, SpecError)
    assert "split,whole" in error.remedy


def test_gpu_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "live2diff_trt.benchmarks.bench_gpu", None)
    error = bench("gpu", "sd15", "--plans", "plans").exception
    assert isinstance(error, Live2DiffError)
    assert "live2diff-trt[export,tensorrt-rtx]" in error.remedy


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = {"torch", "matplotlib", "cuda.core", "live2diff_trt.benchmarks"}
    program = (
        f"import sys, live2diff_trt.cli.bench, live2diff_trt.cli.main; print(sorted({heavy!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
