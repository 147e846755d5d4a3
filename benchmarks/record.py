"""What every measurement records beside its figures."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from live2diff_trt import __version__


def describe_machine(distributions: Iterable[str]) -> dict[str, Any]:
    """Return processor, cores, GPU, Python and the versions of the distributions that were at work."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "gpu": _gpu_name(),
        "python": platform.python_version(),
        "live2diff-trt": __version__,
        "versions": {name: metadata.version(name) for name in distributions},
    }


def write_record(path: Path, figures: dict[str, Any], distributions: Iterable[str]) -> None:
    """Write figures as JSON, with the machine and the command line that was run."""
    record = {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "machine": describe_machine(distributions),
        **figures,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _gpu_name() -> str | None:
    """Return name and driver of the GPUs, or None where there is no NVIDIA driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return None
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def _processor_name() -> str:
    """Return the processor's name; ``platform.processor()`` is empty on many Linux systems."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
