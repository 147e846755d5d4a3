"""What every measurement records beside its figures: the machine, the versions and the command."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from live2diff_trt import __version__
from live2diff_trt.bundle.json_file import write_json

_DISTRIBUTIONS = (
    "cuda-bindings",
    "cuda-core",
    "diffusers",
    "numpy",
    "nvidia-cuda-nvrtc",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "tensorrt",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "torch",
    "triton",
)
_GPU_PROPERTIES = {"name": "name", "driver": "driver_version", "compute_capability": "compute_cap"}
_GPU_CLOCKS = {"sm_mhz": "clocks.sm", "memory_mhz": "clocks.mem", "temperature_c": "temperature.gpu"}


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, GPU, system, Python and the versions of what is installed. No host name, no path."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "gpu": _query_gpu(_GPU_PROPERTIES),
        "system": _system_name(),
        "python": platform.python_version(),
        "live2diff-trt": __version__,
        "versions": _installed_versions(),
    }


def read_clocks() -> dict[str, str] | None:
    """Return the first GPU's clocks in MHz and its temperature as they are now, or None without an NVIDIA driver."""
    return _query_gpu(_GPU_CLOCKS)


def command_line() -> str:
    """Return the command that is running; of absolute paths only the last part is kept."""
    return " ".join(["python", *(_without_folders(argument) for argument in sys.orig_argv[1:])])


def today() -> str:
    """Return the date, UTC, as in 2026-01-31."""
    return datetime.now(timezone.utc).date().isoformat()


def write_record(path: Path, **found: Any) -> None:
    """Write what a command found to a JSON file, with the command, the machine and the date."""
    write_json(path, {"command": command_line(), "machine": {**describe_machine(), "date": today()}, **found})


def _query_gpu(properties: dict[str, str]) -> dict[str, str] | None:
    """Return the first GPU's properties as nvidia-smi prints them, or None where there is no NVIDIA driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", f"--query-gpu={','.join(properties.values())}", "--format=csv,noheader,nounits"]
    first = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return dict(zip(properties, (value.strip() for value in first.split(",")), strict=True))


def _installed_versions() -> dict[str, str]:
    versions = {name: _installed_version(name) for name in _DISTRIBUTIONS}
    return {name: version for name, version in versions.items() if version is not None}


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None  # so it can't have been at work


def _system_name() -> str:
    """Return the Linux distribution and its version; the name of the system where it is another one."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _processor_name() -> str:
    """Return the processor's name; ``platform.processor()`` is empty on many Linux systems."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _without_folders(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else argument
