"""Where a figure comes from: the line that stands below every table and plot."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from live2diff_trt.benchmarks.results_file import Entry, Results

_SHOWN = ("tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "torch")
_SHOWN_WHERE_USED = ("onnxruntime", "onnxruntime-gpu")
_OURS = "live2diff-trt"
# As it is recorded: by the script of the command line, or by the line of Python that a child process is started with.
_RECORDED = re.compile(rf"^python ({_OURS}|-c from live2diff_trt\.cli\.main import main; main\(\))(?= |$)")


def describe_run(results: Results, entries: Sequence[Entry], *, line_length: int | None = None) -> str:
    """Return machine, versions, date, samples and command in one line, or in lines of a length."""
    environment, gpu = results.environment, results.environment["gpu"]
    versions = environment["versions"]
    device = f"{gpu['name']}, driver {gpu['driver']}" if gpu else f"{results.device}, {environment['cores']} cores"
    ours = f"{_OURS} {environment['live2diff-trt']}"
    with_onnx = any(entry.backend.startswith("onnxruntime") for entry in entries)
    names = (*_SHOWN, *_SHOWN_WHERE_USED) if with_onnx else _SHOWN
    shown = [f"{name} {versions[name]}" for name in names if name in versions]
    text = ", ".join([device, ours, *shown, results.date, _count_samples(entries)])
    command = repeat_command(results)
    if line_length is None:
        return f"{text}: `{command}`"
    return "\n".join(line for part in (text, command) for line in textwrap.wrap(part, line_length))


def repeat_command(results: Results) -> str:
    """Return the command that repeats a run."""
    return _RECORDED.sub(_OURS, results.command)


def _count_samples(entries: Sequence[Entry]) -> str:
    counts = sorted({entry.samples for entry in entries})
    if counts[0] != counts[-1]:
        return f"{counts[0]} to {counts[-1]} samples each"
    return {0: "read once", 1: "1 sample each"}.get(counts[0], f"{counts[0]} samples each")
