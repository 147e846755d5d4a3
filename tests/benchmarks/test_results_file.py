"""What a results file says, what it keeps to itself, and what it refuses."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.benchmarks import record
from live2diff_trt.benchmarks.point import BASES
from live2diff_trt.benchmarks.results_file import ResultsFile, slug
from live2diff_trt.benchmarks.timing import MeasurementError

POINT = replace(BASES["tiny"], width=128, height=64)
NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *driver_version*) echo "NVIDIA H200, 580.1, 9.0"; echo "NVIDIA T4, 580.1, 7.5" ;;
  *) echo "1980, 2619, 41"; echo "1590, 5001, 30" ;;
esac
"""


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver's tool names two GPUs."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI, encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def read(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return contents


@pytest.mark.usefixtures("gpu")
def test_an_entry_says_everything(tmp_path: Path) -> None:
    results = ResultsFile()
    results.add_samples("unet_tick", "tensorrt-rtx", "split", POINT, [2.0, 1.00004, 3.0], 1e-3, plan="R=2")
    contents = read(results.write(tmp_path))
    assert set(contents) == {"environment", "command", "entries"}
    assert contents["entries"] == [
        {
            "name": "unet_tick",
            "backend": "tensorrt-rtx",
            "form": "split",
            "steps": 2,
            "height": 64,
            "width": 128,
            "dtype": "float32",
            "p50_ms": 2.0,
            "p99_ms": 2.98,
            "samples": 3,
            "checked_error": 1e-3,
            "notes": {"autoencoder": "tiny", "depth": "tiny", "plan": "R=2"},
            "raw_ms": [2.0, 1.0, 3.0],
        }
    ]


@pytest.mark.usefixtures("gpu")
def test_the_environment_is_that_of_the_first_gpu(tmp_path: Path) -> None:
    environment = read(ResultsFile().write(tmp_path))["environment"]
    assert environment["gpu"] == {"name": "NVIDIA H200", "driver": "580.1", "compute_capability": "9.0"}
    clocks = {"sm_mhz": "1980", "memory_mhz": "2619", "temperature_c": "41"}
    assert environment["clocks_before"] == environment["clocks_after"] == clocks
    assert environment["cores"] == os.cpu_count()
    assert environment["python"] == platform.python_version()
    assert environment["versions"].keys() >= {"numpy", "torch", "onnx"}
    assert "tensorrt" not in environment["versions"]
    assert environment["system"]
    assert set(environment) == {
        *("processor", "cores", "gpu", "system", "python", "live2diff-trt", "versions"),
        *("date", "clocks_before", "clocks_after", "not_run"),
    }


@pytest.mark.usefixtures("no_gpu")
def test_a_machine_without_a_driver_says_so(tmp_path: Path) -> None:
    results = ResultsFile()
    environment = read(results.write(tmp_path))["environment"]
    assert environment["gpu"] is environment["clocks_before"] is environment["clocks_after"] is None
    assert results.file_name == f"{slug(environment['processor'])}-{environment['date']}.json"


@pytest.mark.usefixtures("gpu")
def test_a_later_run_replaces_the_file(tmp_path: Path) -> None:
    first, second = ResultsFile(), ResultsFile()
    first.add_samples("frame", "onnxruntime", None, POINT, [1.0])
    second.add_figure("memory/device", "tensorrt", "whole", POINT, bytes=5)
    first._date = second._date = "2026-01-02"
    results_folder = tmp_path / "results"
    assert first.write(results_folder) == second.write(results_folder) == results_folder / "nvidia-h200-2026-01-02.json"
    (entry,) = read(results_folder / "nvidia-h200-2026-01-02.json")["entries"]
    assert (entry["name"], entry["p50_ms"], entry["samples"]) == ("memory/device", None, 0)
    assert entry["notes"] == {"autoencoder": "tiny", "depth": "tiny", "bytes": 5}
    assert [path.name for path in results_folder.iterdir()] == ["nvidia-h200-2026-01-02.json"]


@pytest.mark.usefixtures("no_gpu")
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    old, new = ResultsFile(), ResultsFile()
    old._date = new._date = "2026-01-02"
    path = old.write(tmp_path)
    before = path.read_bytes()
    new.add_figure("kernel/copy", "torch", None, None, tb_per_s=float("inf"))
    with pytest.raises(ValueError, match="JSON"):
        new.write(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    "name", ["unet_tick", "frame", "frame_latency", "frame_latency_beyond", "stage/vae_decoder", "quality/fp8-ring"]
)
def test_names_that_readers_know(name: str) -> None:
    results = ResultsFile()
    assert results.entries == []
    entry = results.add_samples(name, "torch", None, None, [1.0])
    assert results.entries == [entry]
    assert (entry.name, entry.steps, entry.dtype) == (name, None, None)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["tick", "kernel/", "frame/x", "memory/Device", "unet_tick ", "stage/a/b"])
def test_other_names_are_refused(name: str) -> None:
    results = ResultsFile()
    with pytest.raises(MeasurementError, match="no entry is called"):
        results.add_samples(name, "torch", None, POINT, [1.0])
    assert results.entries == []


@pytest.mark.usefixtures("no_gpu")
def test_wrong_results_are_not_recorded() -> None:
    results = ResultsFile()
    with pytest.raises(MeasurementError, match="not a number"):
        results.add_samples("unet_tick", "torch", None, POINT, [1.0], checked_error=float("nan"))
    assert results.entries == []


def test_a_slug_fits_a_file_name() -> None:
    assert slug("NVIDIA H200") == "nvidia-h200"
    assert slug("Intel(R) Xeon(R) @ 2.0GHz ") == "intel-r-xeon-r-2-0ghz"


def test_the_command_names_no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["/opt/python", "-m", "compare", "bundles/tiny", "/home/me/sd15", "--out=/tmp/x.json", "--size=64x64"]
    monkeypatch.setattr(sys, "orig_argv", arguments)
    assert record.command_line() == "python -m compare bundles/tiny sd15 --out=x.json --size=64x64"
