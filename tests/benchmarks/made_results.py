"""Results made up for tests: few entries, written as a file, and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live2diff_trt.benchmarks.results_file import Results, read_results

ROOT = Path(__file__).parents[2]
GPU = {"name": "NVIDIA T4", "driver": "580.1", "compute_capability": "7.5"}
VERSIONS = {"torch": "2.11.0", "tensorrt-rtx-cu13": "1.6.1.120"}
CLOCKS = {"sm_mhz": "1", "memory_mhz": "2", "temperature_c": "3"}
COMMAND = "python live2diff-trt bench suite --work work"


def make_entry(name: str, p50_ms: float | None, backend: str = "tensorrt-rtx", **other: Any) -> dict[str, Any]:
    """Return an entry of a stream of 512×512, T = 2, float16, with three samples around its median."""
    form = "split" if backend == "tensorrt-rtx" else None
    raw_ms: list[float] = [] if p50_ms is None else [p50_ms - 0.001, p50_ms, p50_ms + 0.001]
    return {
        "name": name,
        "backend": backend,
        "form": form,
        "steps": 2,
        "height": 512,
        "width": 512,
        "dtype": "float16",
        "p50_ms": p50_ms,
        "p99_ms": p50_ms and p50_ms + 0.001,
        "samples": len(raw_ms),
        "checked_error": None,
        "notes": {},
        "raw_ms": raw_ms,
        **other,
    }


def make_limit(name: str, **notes: float) -> dict[str, Any]:
    """Return an entry that belongs to no stream."""
    nothing = dict.fromkeys(("form", "steps", "height", "width", "dtype"))
    return make_entry(name, 2.0, "torch", notes=notes, **nothing)


def write_results(path: Path, *entries: dict[str, Any], **environment: Any) -> Path:
    """Write a results file; the environment's values replace the usual ones."""
    usual: Mapping[str, Any] = {
        "processor": "Xeon",
        "cores": 4,
        "gpu": GPU,
        "system": "Ubuntu",
        "python": "3.12.3",
        "live2diff-trt": "0.1.0",
        "versions": VERSIONS,
        "date": "2026-01-02",
        "clocks_before": CLOCKS,
        "clocks_after": None,
    }
    contents = {"environment": {**usual, **environment}, "command": COMMAND, "entries": entries}
    path.write_text(json.dumps(contents), encoding="utf-8")
    return path


def make_results(folder: Path, *entries: dict[str, Any], **environment: Any) -> Results:
    """Return results that were written to a file and read again."""
    return read_results(write_results(folder / "nvidia-t4-2026-01-02.json", *entries, **environment))


WORK = {"tflop": 2.227, "cache_bytes": 3_040_870_400}
"""What a tick of the UNet counts."""
LIMITS = [
    make_limit("kernel/copy", tb_per_s=4.0),
    make_limit("kernel/matmul", tflop_per_s=700.0),
]


def make_point(steps: int = 2, size: tuple[int, int] = (512, 512), **changed: Any) -> list[dict[str, Any]]:
    """Return a point as the suite measures it: UNet and frames by TensorRT (12 and 16 ms) and PyTorch (15 and 20)."""
    stream = {"steps": steps, "width": size[0], "height": size[1]}
    notes = {"autoencoder": "taesd", "depth": "dpt-hybrid", **WORK, **changed}
    times = {"unet_tick": (12.0, 15.0), "frame": (16.0, 20.0)}
    return [
        make_entry(name, ms, backend, notes=notes, **stream)
        for name, both in times.items()
        for backend, ms in zip(("tensorrt-rtx", "torch-compile"), both, strict=True)
    ]
