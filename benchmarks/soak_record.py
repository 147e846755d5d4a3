"""What a long run came to, as JSON and as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from live2diff_trt.benchmarks.record import describe_machine, today, write_record
from live2diff_trt.benchmarks.results_file import device_name
from live2diff_trt.benchmarks.soak import Soak
from live2diff_trt.bundle.spec import StreamSpec


def write_soak(path: Path, found: Soak, spec: StreamSpec) -> None:
    """Write every sample to a JSON file, with the machine, the stream and the command."""
    stream = {"size": f"{spec.width}x{spec.height}", "steps": spec.steps, "dtype": spec.dtype}
    write_record(path, stream=stream, soak=found.to_json())


def draw_soak(found: Soak, spec: StreamSpec, limit_mb: float) -> Figure:
    """Draw memory over time, and how far it may grow from the first finished frame on."""
    minutes = [one.seconds / 60 for one in found.samples]
    resident = [one.resident_mb for one in found.samples]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(minutes, resident, color="#5b9a2f", linewidth=1.5)
    axes.axhline(
        resident[0] + limit_mb, color="black", linestyle="--", linewidth=1, label=f"limit: {limit_mb:g} MB more"
    )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_ylabel("memory of the process in RAM, MB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    frames = found.samples[-1].frames
    figure.suptitle(f"{frames:,} frames of the test pattern: {found.growth_mb:+.1f} MB", fontsize=12)
    where = f"{device_name(describe_machine())}, {spec.width}x{spec.height}, T = {spec.steps}, {today()}"
    figure.supxlabel(where, fontsize=7, color="#555555")
    return figure
