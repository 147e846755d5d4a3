"""What every measurement records beside its figures."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any


def describe_machine(distributions: Iterable[str]) -> dict[str, Any]:
    """Return processor, cores, Python and the versions of the distributions that were at work."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
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


def _processor_name() -> str:
    """Return the processor's name; ``platform.processor()`` is empty on many Linux systems."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
