"""Start-up step by step, each a process; here nothing is started that takes long."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.benchmarks import bench_startup
from live2diff_trt.benchmarks.bench_startup import measure_memory, time_startup
from live2diff_trt.benchmarks.open_fresh import open_fresh
from live2diff_trt.benchmarks.our_commands import Spent, build_command, export_command, our_command, run_timed
from live2diff_trt.benchmarks.point import BASES, STEP_LISTS
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import ONNX_ROW, OVERLAP, REFITTABLE, SPLIT, Label
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.gpu import Gpu

GPU = Gpu("NVIDIA T4", (7, 5), "580.1")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand for the processes, and tell which there were."""
    taken: list[str] = []

    def run(command: list[str]) -> Spent:
        taken.append(command[3])
        if command[3] == "export":
            Path(command[-1]).mkdir()
            (Path(command[-1]) / "unet.onnx").write_bytes(b"12345")
        return Spent(2.0, 1000)

    def open_stream(bundle: Path, plans: Path, row: str, step_list: tuple[int, ...]) -> dict[str, Any]:
        taken.append(f"open {row}")
        return {"seconds": 0.5, "fell_bytes": 7}

    monkeypatch.setattr(bench_startup, "run_timed", run)
    monkeypatch.setattr(bench_startup, "open_fresh", open_stream)
    monkeypatch.setattr(bench_startup, "label_of", lambda row, _: Label(row))
    monkeypatch.setattr(bench_startup, "_plans_folder", lambda *_: Path("absent"))
    return taken


def test_on_a_gpu_plans_are_built_and_opened_twice(tmp_path: Path, steps: list[str]) -> None:
    results = ResultsFile()
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "torn").touch()
    time_startup(results, BASES["sd15"], bundle, tmp_path / "plans", GPU)
    assert steps == ["export", "build", f"open {SPLIT}", f"open {SPLIT}"]
    assert not (bundle / "torn").exists()
    assert [(entry.name, entry.p50_ms) for entry in results.entries] == [
        ("startup/export", 2000.0),
        ("startup/build", 2000.0),
        ("startup/first_open", 500.0),
        ("startup/restart", 500.0),
    ]
    assert results.entries[0].notes["bytes"] == 5
    assert results.entries[0].notes["peak_resident_bytes"] == 1000


def test_without_one_onnxruntime_opens_the_bundle(tmp_path: Path, steps: list[str]) -> None:
    results = ResultsFile()
    time_startup(results, BASES["tiny"], tmp_path / "bundle", tmp_path / "plans", None)
    assert steps == ["export", f"open {ONNX_ROW}"]
    assert [entry.name for entry in results.entries] == ["startup/export", "startup/restart"]


def test_memory_is_that_of_every_row(tmp_path: Path, steps: list[str]) -> None:
    results = ResultsFile()
    measure_memory(results, BASES["sd15"], tmp_path, tmp_path, (SPLIT, OVERLAP), GPU)
    assert steps == [f"open {SPLIT}", f"open {OVERLAP}"]
    assert [(entry.name, entry.backend, entry.notes["fell_bytes"]) for entry in results.entries] == [
        ("memory/session", SPLIT, 7),
        ("memory/session", OVERLAP, 7),
    ]


def test_commands_are_those_of_a_user() -> None:
    point = replace(BASES["sd15"], step_list=STEP_LISTS[4], depth="depth-anything-small", seed=3)
    command = " ".join(export_command(point, Path("out"))[3:])
    assert command == (
        "export --preset sd15 --size 512x512 --step-list 30,40 --dtype fp16 --depth depth-anything --random-weights "
        "--seed 3 --out out"
    )
    command = " ".join(build_command(point, Path("b"), Path("p"), SPLIT, opened=False)[3:])
    assert command == "build b --plans p --form split --rows 4 --no-open"
    assert "--refittable" in build_command(point, Path("b"), Path("p"), REFITTABLE, opened=True)
    assert "--no-open" not in build_command(point, Path("b"), Path("p"), SPLIT, opened=True)


def test_a_command_is_timed_and_its_memory_looked_at() -> None:
    held = run_timed([sys.executable, "-c", "import time; held = b'1' * 200_000_000; time.sleep(0.1)"])
    assert held.seconds >= 0.1
    assert held.peak_resident_bytes > 200e6


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(MeasurementError, match=r"ended with 3.*no room"):
        run_timed([sys.executable, "-c", "print('no room'); raise SystemExit(3)"])
    assert run_timed(our_command("--version")).seconds > 0


def test_a_stream_is_opened_in_a_new_process(tiny_bundle: Path) -> None:
    assert open_fresh(tiny_bundle, None, ONNX_ROW, STEP_LISTS[1])["seconds"] > 0
    with pytest.raises(MeasurementError, match="there is no bundle"):
        open_fresh(tiny_bundle / "absent", None, ONNX_ROW, STEP_LISTS[1])
