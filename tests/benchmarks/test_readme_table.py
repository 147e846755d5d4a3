"""The table in the README is that of the newest results, and nothing around it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from live2diff_trt.benchmarks.performance_page import find_newest
from live2diff_trt.benchmarks.readme_table import BEGINS, ENDS, render_readme, write_readme
from live2diff_trt.benchmarks.results_file import ResultsError
from tests.benchmarks.made_results import ROOT, make_entry, make_point, make_results

EMPTY = f"# Ours\n\n{BEGINS}\n{ENDS}\n\nMore.\n"


def test_the_committed_table_is_that_of_the_committed_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == render_readme(text, find_newest(ROOT / "benchmarks" / "results")), (
        "run `live2diff-trt bench page --readme README.md`"
    )


def test_every_stream_is_a_row(tmp_path: Path) -> None:
    slow = make_entry("frame", 40.0, "torch-compile")
    written = render_readme(EMPTY, [make_results(tmp_path, *make_point(), *make_point(steps=4), slow)])
    assert written.startswith(f"# Ours\n\n{BEGINS}\n\n| NVIDIA T4 | tensorrt-rtx, FPS | PyTorch, FPS |")
    assert "\n| 512×512, T = 2, TAESD, DPT-Hybrid, float16 | 62.5 | 50.0 | 12.00 | 15.00 |\n" in written
    assert "\n| 512×512, T = 4, TAESD, DPT-Hybrid, float16 | 62.5 | 50.0 | 12.00 | 15.00 |\n" in written
    assert "\n| 512×512, T = 2, float16 |  | 25.0 |  |  |\n" in written
    assert "<sub>NVIDIA T4, driver 580.1, live2diff-trt 0.1.0, " in written
    assert written.endswith(f"\n\n{ENDS}\n\nMore.\n")


def test_the_newest_results_of_a_gpu_are_taken(tmp_path: Path) -> None:
    frames = [make_entry("frame", 1000 / rate) for rate in (10, 20, 30)]
    old = make_results(tmp_path, frames[0], date="2026-01-01")
    new = make_results(tmp_path, frames[1], date="2026-01-03")
    processor = make_results(tmp_path, frames[2], gpu=None, clocks_before=None, date="2026-01-04")
    assert "| 20.0 |" in render_readme(EMPTY, [old, new, processor])
    assert "| 30.0 |" in render_readme(EMPTY, [processor])


def test_a_table_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(EMPTY, encoding="utf-8")
    results = make_results(tmp_path, *make_point())
    write_readme([results], readme)
    once = readme.read_text(encoding="utf-8")
    write_readme([results], readme)
    assert readme.read_text(encoding="utf-8") == once != EMPTY


@pytest.mark.parametrize("text", ["# Ours\n", f"# Ours\n{BEGINS}\n", f"# Ours\n{ENDS}\n"])
def test_a_file_without_a_place_for_it_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ResultsError, match=r"here\.md has no place for the table"):
        render_readme(text, [make_results(tmp_path, *make_point())], "here.md")
