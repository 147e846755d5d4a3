"""The table in the README: every stream of the newest results, in one row each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from live2diff_trt.benchmarks.axes import find_duel, show_rate, show_time
from live2diff_trt.benchmarks.markdown import write_columns
from live2diff_trt.benchmarks.provenance import describe_run
from live2diff_trt.benchmarks.results_file import Results, ResultsError
from live2diff_trt.benchmarks.timed import find_streams, stream_of

BEGINS = "<!-- this table: `live2diff-trt bench page --readme README.md` -->"
ENDS = "<!-- end of the table -->"


def write_readme(found: Sequence[Results], readme: Path) -> None:
    """Write the table between its marks, in place of the last one.

    Raises:
        ResultsError: the file has no such place.
    """
    text = render_readme(readme.read_text(encoding="utf-8"), found, str(readme))
    readme.write_text(text, encoding="utf-8", newline="\n")


def render_readme(text: str, found: Sequence[Results], name: str = "README.md") -> str:
    """Return a README's text with the table of the newest results, those of a GPU if there are any."""
    before, begins, rest = text.partition(BEGINS)
    _, ends, after = rest.partition(ENDS)
    if not begins or not ends:
        raise ResultsError(f"{name} has no place for the table", f"Put `{BEGINS}` and `{ENDS}` around it")
    newest = max(found, key=lambda results: (results.environment["gpu"] is not None, results.date))
    return f"{before}{begins}\n\n{_tabulate(newest)}\n\n{ends}{after}"


def _tabulate(results: Results) -> str:
    streams = find_streams(results)
    frames = [find_duel(results, stream, "frame") for stream in streams]
    ticks = [find_duel(results, stream, "unet_tick") for stream in streams]
    ours = next((duel.ours.entry.backend for duel in frames if duel.ours), "")
    table = write_columns(
        {
            results.device: [str(stream) for stream in streams],
            f"{ours}, FPS": [show_rate(duel.ours) for duel in frames],
            "PyTorch, FPS": [show_rate(duel.theirs) for duel in frames],
            f"{ours}, UNet ms": [show_time(duel.ours) for duel in ticks],
            "PyTorch, UNet ms": [show_time(duel.theirs) for duel in ticks],
        }
    )
    compared = [entry for entry in results.entries if stream_of(entry) and entry.name in {"frame", "unet_tick"}]
    return f"{table}\n\n<sub>{describe_run(results, compared)}</sub>"
