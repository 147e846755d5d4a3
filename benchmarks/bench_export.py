"""What an export takes: ``python -m live2diff_trt.benchmarks.bench_export sd15 --record result.json``.

What is timed: the whole command in a process of its own, start and imports included. Its memory is the largest
resident set of that process, shared and mapped pages included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from live2diff_trt.benchmarks.record import write_record

_EXPORT = "from live2diff_trt.cli.main import main; main()"


def bench_export(
    preset: Annotated[str, typer.Argument(help="The preset to export.")],
    record: Annotated[Path, typer.Option(help="JSON file to write.")],
    dtype: Annotated[str, typer.Option(help="fp16 or fp32.")] = "fp16",
) -> None:
    """Time one export of a preset with random weights, and measure its memory."""
    with tempfile.TemporaryDirectory(prefix="live2diff-bench-") as scratch:
        options = ["--preset", preset, "--dtype", dtype, "--random-weights", "--out", f"{scratch}/bundle"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _EXPORT, "export", *options], check=True)
        seconds = time.perf_counter() - began
        bundle_bytes = sum(path.stat().st_size for path in Path(scratch, "bundle").iterdir())
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    figures = {"export_seconds": seconds, "peak_resident_bytes": peak_bytes, "bundle_bytes": bundle_bytes}
    write_record(record, figures)
    typer.echo(f"{seconds:.0f} s, {peak_bytes / 1e9:.1f} GB resident, {bundle_bytes / 1e9:.2f} GB written; {record}")


if __name__ == "__main__":
    typer.run(bench_export)
