"""The command line as a child process: what a user would type, timed from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from live2diff_trt.benchmarks.point import BASES, STEP_LISTS, Point
from live2diff_trt.benchmarks.rows import plan_options
from live2diff_trt.benchmarks.timing import MeasurementError

_OURS = "from live2diff_trt.cli.main import main; main()"
_VAES = {"taesd": "taesd", "kl": "kl"}
_DEPTHS = {"dpt-hybrid": "midas", "depth-anything-small": "depth-anything"}


class Spent(NamedTuple):
    """What a command took: seconds by the clock, and the largest resident set of its process.

    A process begins with the resident set of the one that starts it, so less than that is not seen.
    """

    seconds: float
    peak_resident_bytes: int


def our_command(*arguments: object) -> list[str]:
    """Return ``live2diff-trt`` with arguments, as this environment runs it."""
    return [sys.executable, "-c", _OURS, *map(str, arguments)]


def export_command(point: Point, out: Path) -> list[str]:
    """Return what exports a point's bundle. Points that differ in T share it: it is exported for T = 2."""
    base = BASES[point.preset]
    networks: list[str] = []
    if point.autoencoder != base.autoencoder:
        networks += ["--vae", _VAES[point.autoencoder]]
    if point.depth != base.depth:
        networks += ["--depth", _DEPTHS[point.depth]]
    dtype = {"float16": "fp16", "float32": "fp32"}[point.dtype]
    stream = ["--size", f"{point.width}x{point.height}", "--step-list", ",".join(map(str, STEP_LISTS[2]))]
    weights = ["--random-weights", "--seed", point.seed]
    return our_command("export", "--preset", point.preset, *stream, "--dtype", dtype, *networks, *weights, "--out", out)


def build_command(point: Point, bundle: Path, plans: Path, row: str, *, opened: bool) -> list[str]:
    """Return what builds a row's plans of a point, and opens them once if that is asked for."""
    options = ["--plans", plans, *plan_options(row), "--rows", point.steps]
    return our_command("build", bundle, *options, *([] if opened else ["--no-open"]))


def run_timed(command: list[str]) -> Spent:
    """Run a command to its end; raise MeasurementError, with the end of what it said, if it fails."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = "" if process.stdout is None else process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MeasurementError(
            f"{' '.join(command[2:])} ended with {process.returncode}: {said.strip()[-500:]}", "Mend that command first"
        )
    return Spent(seconds, usage.ru_maxrss * 1024)
