"""The page in the repository is what its results give, and says nothing that they don't."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.benchmarks.counted_work import Rates
from live2diff_trt.benchmarks.performance_page import find_newest, plot_name, render_page, write_page
from live2diff_trt.benchmarks.plots import draw_plots
from live2diff_trt.benchmarks.provenance import repeat_command
from live2diff_trt.benchmarks.results_file import Results, ResultsError
from live2diff_trt.benchmarks.speed_log import Step, read_speed_log
from tests.benchmarks.made_results import GPU, LIMITS, ROOT, WORK, make_entry, make_point, make_results, write_results

COMMITTED = ROOT / "docs" / "performance.md"
STEPS = read_speed_log(ROOT / "benchmarks" / "speed_log.json")
EAGER = make_entry("unet_tick", 48.0, "torch-eager", checked_error=2e-3, notes=WORK)


def render(folder: Path, *entries: dict[str, Any]) -> str:
    return render_page([make_results(folder, *entries)], (), ())


def rows_of(page: str, title: str) -> list[list[str]]:
    """Return the first table below a title, its header first."""
    table = page.partition(title)[2].partition("\n| ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in f"| {table}".splitlines()]


def plot_names(found: list[Results]) -> set[str]:
    return {plot_name(one, name) for one in found for name in draw_plots(one)}


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    found = find_newest(ROOT / "benchmarks" / "results")
    assert COMMITTED.read_text(encoding="utf-8") == render_page(found, STEPS, plot_names(found)), (
        "run `live2diff-trt bench page`"
    )


def test_the_committed_plots_are_those_of_the_page() -> None:
    shown = set(re.findall(r"\(plots/([^)]+)\)", COMMITTED.read_text(encoding="utf-8")))
    there = {path.name: path.stat().st_size for path in (ROOT / "docs" / "plots").iterdir()}
    assert shown == there.keys()
    assert max(there.values()) < 80_000


def test_the_unet_beside_eager_and_limit(tmp_path: Path) -> None:
    page = render(tmp_path, *LIMITS, EAGER, make_entry("unet_tick", 12.0, checked_error=6e-3, notes=WORK))
    assert rows_of(page, "#### UNet tick") == [
        ["backend", "ms", "p99 ms", "times as fast as PyTorch eager", "× of the limit", "error against float32"],
        ["---", "---:", "---:", "---:", "---:", "---:"],
        ["tensorrt-rtx split", "12.00", "12.00", "4.00", "3.04", "6.0e-03"],
        ["torch-eager", "48.00", "48.00", "1.00", "12.18", "2.0e-03"],
    ]
    assert "The limit is 3.94 ms: 2.227 TFLOP at the measured rate of a matrix product (3.18 ms)" in page
    assert "3.04 GB of kv-caches read once at the measured rate of copying (0.760 ms)" in page


def test_neither_eager_nor_limit_is_made_up(tmp_path: Path) -> None:
    page = render(tmp_path, LIMITS[0], make_entry("unet_tick", 12.0, notes=WORK))
    assert rows_of(page, "#### UNet tick")[::2] == [
        ["backend", "ms", "p99 ms", "error against float32"],
        ["tensorrt-rtx split", "12.00", "12.00", "not checked"],
    ]
    uncounted = render(tmp_path, *LIMITS, make_entry("unet_tick", 12.0))
    assert "| × of the limit" not in uncounted
    assert "The limit is" not in uncounted


@pytest.mark.parametrize(
    ("compiled_ms", "verdict"),
    [
        (10.0, "**PyTorch wins the UNet's tick here**: `torch-compile` takes 10.00 ms, `tensorrt-rtx split` 12.00 ms"),
        (15.0, "**TensorRT wins the UNet's tick here**: `tensorrt-rtx split` takes 12.00 ms, `torch-compile` 15.00 ms"),
    ],
)
def test_the_winner_is_named_and_who_is_closer(tmp_path: Path, compiled_ms: float, verdict: str) -> None:
    compiled = make_entry("unet_tick", compiled_ms, "torch-compile", checked_error=1e-3)
    page = render(tmp_path, EAGER, compiled, make_entry("unet_tick", 12.0, checked_error=6e-3))
    assert f"{verdict}, {20 if compiled_ms < 12 else 25}.0 % more." in page
    assert "Closer to float32 is `torch-compile`: 1.0e-03 against 6.0e-03." in page


def test_nobody_wins_alone(tmp_path: Path) -> None:
    assert "wins" not in render(tmp_path, EAGER)
    assert "wins" not in render(tmp_path, make_entry("unet_tick", 12.0))


def test_frames_stages_kernels_start_up_and_memory(tmp_path: Path) -> None:
    parts = {"rows": 1_000_000, "weights": 3_000_000_000}
    memory = {"fell_bytes": 4e9, "estimated_bytes": 5e9, "parts": parts}
    attention = {"launches": 10, "bytes_read_and_written": 2_000_000_000, "tb_per_s": 2.0}
    page = render(
        tmp_path,
        *LIMITS,
        make_entry("frame", 20.0, checked_error=1e-2, notes=WORK),
        make_entry("frame_latency", 40.0, notes={"source_interval_ms": 25.0}),
        make_entry("frame_latency_beyond", 21.0),
        make_entry("stage/tick", 20.0),
        make_entry("stage/enter", 5.0, notes={"tflop": 0.7}),
        make_entry("stage/host_tick", 0.25),
        make_entry("kernel/streaming_attention-64x64x320", 1.0, notes=attention),
        make_entry("startup/restart", 6400.0),
        make_entry("startup/export", 60_000.0, "export", notes={"peak_resident_bytes": 5.9e9}),
        make_entry("memory/session", None, notes=memory),
    )
    assert rows_of(page, "#### Whole frames")[2:] == [
        ["tensorrt-rtx split", "50.0", "20.00", "20.00", "5.07", "1.0e-02"],
    ]
    assert rows_of(page, "#### Latency")[2:] == [
        ["tensorrt-rtx split", "25.00", "40.00", "40.00", "21.00", "21.00"],
    ]
    assert [row[1:] for row in rows_of(page, "#### Where a tick's time goes")[2:]] == [
        ["`enter`", "tensorrt-rtx split", "5.00", "5.00", "25 %", "5.00"],
        ["`tick`", "tensorrt-rtx split", "20.00", "20.00", "100 %"],
    ]
    assert rows_of(page, "#### Beside the tick")[2][1:] == ["`host_tick`", "tensorrt-rtx split", "0.250", "0.251"]
    assert rows_of(page, "#### Kernels")[2:] == [
        ["`streaming_attention-64x64x320`", "10", "1.00", "100.0", "200.00", "2.00", "50 %", "2.00"],
    ]
    assert [row[1:] for row in rows_of(page, "#### Start-up")[2:]] == [
        ["`restart`", "tensorrt-rtx split", "6.4"],
        ["`export`", "export", "60.0", "5.9"],
    ]
    assert rows_of(page, "#### Memory, tensorrt-rtx split")[2:] == [
        ["estimated before anything is allocated", "5.00"],
        ["free memory fell by", "4.00"],
        ["the estimate is off by", "+25.00 %"],
    ]
    assert rows_of(page, "| of the estimate")[1:] == [["weights", "3,000", "60 %"], ["rows", "1", "< 1 %"]]


def test_quality_says_what_is_equal(tmp_path: Path) -> None:
    notes = {"clip": "bikes.mp4", "frames": 100, "ssim": 0.98765, "worst_ssim": 0.9}
    lossy = make_entry("quality/fp8-ring", None, notes={**notes, "psnr_db": 41.26, "worst_psnr_db": 38.0})
    equal = make_entry("quality/same", None, notes={**notes, "psnr_db": None, "worst_psnr_db": None})
    assert rows_of(render(tmp_path, lossy, equal), "#### Quality")[2:] == [
        ["`fp8-ring`", "bikes.mp4", "100", "41.3", "38.0", "0.9877", "0.9000"],
        ["`same`", "bikes.mp4", "100", "equal", "equal", "0.9877", "0.9000"],
    ]


def test_points_beside_the_base_point_are_rows_of_an_axis(tmp_path: Path) -> None:
    slow = [{**entry, "p50_ms": 30.0} if entry["form"] else entry for entry in make_point(steps=4)]
    points = [*make_point(), *slow, *make_point(steps=1), *make_point(size=(768, 512)), *make_point(autoencoder="kl")]
    page = render(tmp_path, *LIMITS, *points)
    assert rows_of(page, "### Over T")[2:] == [
        ["T = 1", "12.00", "15.00", "3.04", "TensorRT, 25 %", "62.5", "50.0", "4.06", "TensorRT, 25 %"],
        ["T = 2", "12.00", "15.00", "3.04", "TensorRT, 25 %", "62.5", "50.0", "4.06", "TensorRT, 25 %"],
        ["T = 4", "30.00", "15.00", "7.61", "**PyTorch**, 100 %", "33.3", "50.0", "7.61", "**PyTorch**, 50 %"],
    ]
    assert [row[0] for row in rows_of(page, "### Over the size")[2:]] == ["512×512", "768×512"]
    assert [row[0] for row in rows_of(page, "### With another")[2:]] == [
        "TAESD, DPT-Hybrid",
        "KL autoencoder, DPT-Hybrid",
    ]
    lost = "512×512, T = 4, TAESD, DPT-Hybrid, float16"
    assert f"**Where PyTorch is faster**: the UNet's tick at {lost}, and in whole frames at {lost}." in page
    assert page.count("#### UNet tick") == 1  # the base point's


def test_it_is_said_that_pytorch_is_nowhere_faster(tmp_path: Path) -> None:
    assert "**PyTorch is nowhere faster** in the 2 figures" in render(tmp_path, *make_point())


def test_what_was_not_run_is_named(tmp_path: Path) -> None:
    results = make_results(tmp_path, EAGER, not_run={"tensorrt-whole": "it is not right"})
    assert "Not run, or not timed:\n\n- tensorrt-whole: it is not right" in render_page([results], (), ())


def test_a_machine_without_a_gpu_has_a_page_too(tmp_path: Path) -> None:
    results = make_results(tmp_path, EAGER, gpu=None, clocks_before=None)
    page = render_page([results], (), ())
    assert "## Xeon" in page
    assert "| GPU | none |" in page
    assert "<sub>Xeon, 4 cores, live2diff-trt 0.1.0" in page


def test_what_was_tried_for_speed_is_told(tmp_path: Path) -> None:
    step = Step("Static rows", "", "8.1 instead of 13.0 ms", "kept", "NVIDIA H100")
    page = render_page([make_results(tmp_path, EAGER)], [step], ())
    assert rows_of(page, "## What was tried")[2:] == [
        ["Static rows", "–", "8.1 instead of 13.0 ms", "kept", "NVIDIA H100"]
    ]


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    titles = re.findall(r"^#+ .*$", render(tmp_path, make_entry("stage/see", 20.0)), re.MULTILINE)
    assert titles == ["# Performance", "## NVIDIA T4", "### 512×512, T = 2, float16", "#### Where a tick's time goes"]


def test_every_table_says_where_it_is_from(tmp_path: Path) -> None:
    page = render(tmp_path, EAGER, make_entry("stage/gather", 20.0, samples=20), make_entry("stage/host_tick", 1.0))
    run = "NVIDIA T4, driver 580.1, live2diff-trt 0.1.0, tensorrt-rtx-cu13 1.6.1.120, torch 2.11.0, 2026-01-02"
    command = "`live2diff-trt bench suite --work work`"
    assert re.findall(r"<sub>(.*)</sub>", page) == [
        f"{run}, 3 to 20 samples each: {command}",  # the targets
        f"{run}, 3 samples each: {command}",
        f"{run}, 3 to 20 samples each: {command}",
    ]


@pytest.mark.parametrize(
    ("recorded", "repeated"),
    [
        ("python live2diff-trt bench suite --work work", "live2diff-trt bench suite --work work"),
        ("python -c from live2diff_trt.cli.main import main; main() bench suite", "live2diff-trt bench suite"),
        ("python -m other sd15", "python -m other sd15"),
    ],
)
def test_the_command_is_one_that_can_be_run(tmp_path: Path, recorded: str, repeated: str) -> None:
    results = replace(make_results(tmp_path, EAGER), command=recorded)
    assert repeat_command(results) == repeated


def test_the_newest_of_each_gpu_is_shown(tmp_path: Path) -> None:
    other = {**GPU, "name": "NVIDIA A10"}
    for name, gpu, date in (
        ("nvidia-t4-2026-01-02", GPU, "2026-01-02"),
        ("nvidia-t4-2026-01-10", GPU, "2026-01-10"),
        ("nvidia-a10-2025-12-31", other, "2025-12-31"),
        ("a-processor-2026-02-02", None, "2026-02-02"),
    ):
        write_results(tmp_path / f"{name}.json", make_entry("frame", 20.0), gpu=gpu, date=date)
    (tmp_path / "export-sd15.json").write_text("{}", encoding="utf-8")
    found = find_newest(tmp_path)
    assert [results.file_name for results in found] == [
        "nvidia-a10-2025-12-31.json",
        "nvidia-t4-2026-01-10.json",
        "a-processor-2026-02-02.json",
    ]


def test_no_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no results"):
        find_newest(tmp_path)


def test_page_and_plots_are_written_together(tmp_path: Path) -> None:
    results = make_results(tmp_path, EAGER, make_entry("frame", 20.0))
    (tmp_path / "docs" / "plots").mkdir(parents=True)
    (tmp_path / "docs" / "plots" / "of-before.png").touch()
    page = write_page([results], (), tmp_path / "docs")
    assert page == tmp_path / "docs" / "performance.md"
    names = ["nvidia-t4-latency.png", "nvidia-t4-unet.png"]
    assert sorted(path.name for path in (tmp_path / "docs" / "plots").iterdir()) == names
    assert sorted(re.findall(r"\(plots/([^)]+)\)", page.read_text(encoding="utf-8"))) == names


def test_a_limit_is_computing_and_then_moving() -> None:
    rates = Rates(copy_tb_per_s=1.0, matmul_tflop_per_s=1.0)
    assert rates.shortest_ms(WORK) == pytest.approx(2227 + 3.04087, abs=1e-3)
    assert rates.shortest_ms({"bytes_read_and_written": 10**9}) == pytest.approx(1.0)
    assert rates.shortest_ms({"launches": 1}) is None
