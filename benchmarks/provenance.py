"""Where a figure comes from: the line that stands below every table and plot."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from live2diff_trt.benchmarks.results_file import Entry, Results, ResultsError

_SHOWN = ("tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "torch")
_OUR_COMMAND = "live2diff-trt bench gpu"
# As it is recorded: by the script of the command line, or by the module, which was run itself before there was one.
_RECORDED = re.compile(rf"^python (-m live2diff_trt\.benchmarks\.bench_gpu|{_OUR_COMMAND})(?= |$)")


def gpu_of(results: Results) -> Mapping[str, str]:
    """Return ``name``, ``driver`` and ``compute_capability`` of the GPU; raise ResultsError if the run had none."""
    gpu: Mapping[str, str] | None = results.environment["gpu"]
    if gpu is None:
        raise ResultsError(f"{results.file_name} was measured without a GPU", "Name results of a GPU")
    return gpu


def describe_run(results: Results, entries: Sequence[Entry], *, line_length: int | None = None) -> str:
    """Return GPU, driver, versions, date, samples and command in one line, or in lines of a length.

    Raises:
        ResultsError: the results are of a run without a GPU.
    """
    gpu = gpu_of(results)
    versions = results.environment["versions"]
    shown = [f"{name} {versions[name]}" for name in _SHOWN if name in versions]
    ours = f"live2diff-trt {results.environment['live2diff-trt']}"
    text = ", ".join([gpu["name"], f"driver {gpu['driver']}", ours, *shown, results.date, _count_samples(entries)])
    command = repeat_command(results)
    if line_length is None:
        return f"{text}: `{command}`"
    return "\n".join(line for part in (text, command) for line in textwrap.wrap(part, line_length))


def repeat_command(results: Results) -> str:
    """Return the command that repeats a run."""
    return _RECORDED.sub(_OUR_COMMAND, results.command)


def _count_samples(entries: Sequence[Entry]) -> str:
    counts = sorted({entry.samples for entry in entries})
    if counts[0] != counts[-1]:
        return f"{counts[0]} to {counts[-1]} samples each"
    return {0: "read once", 1: "1 sample each"}.get(counts[0], f"{counts[0]} samples each")
