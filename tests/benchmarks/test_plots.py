"""The plots show the figures of the results, and no plot is drawn of what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from live2diff_trt.benchmarks.plots import draw_latency, draw_plots, draw_tick, draw_unet_ticks, save_plot
from live2diff_trt.benchmarks.timed import Stream
from tests.benchmarks.made_results import LIMITS, WORK, make_entry, make_point, make_results

STREAM = Stream(2, 512, 512, "float16")
TICKS = [
    make_entry("unet_tick", 11.0, "torch-compile", notes=WORK),
    make_entry("unet_tick", 47.0, "torch-eager", notes=WORK),
    make_entry("unet_tick", 12.0, notes=WORK),
]
STAGES = {"enter": 3.7, "denoise": 12.4, "decode": 0.5, "see": 0.1, "encode": 0.6, "estimate_depth": 2.5}


def make_stages(form: str = "split", **changed: float | None) -> list[dict[str, Any]]:
    times = {**STAGES, **changed}
    return [make_entry(f"stage/{name}", ms, form=form) for name, ms in times.items() if ms is not None]


def bars_of(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_a_bar_for_each_backend_and_the_limit(tmp_path: Path) -> None:
    figure = draw_unet_ticks(make_results(tmp_path, *TICKS, *LIMITS), STREAM)
    assert figure is not None
    (axes,) = figure.axes
    assert [bar.get_width() for bar in bars_of(axes)] == [47.0, 12.0, 11.0]  # from below
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "torch-eager",
        "tensorrt-rtx split",
        "torch-compile",
    ]
    assert [text.get_text() for text in axes.texts] == ["47.00 ms", "12.00 ms", "11.00 ms"]
    assert legend_of(axes) == ["limit 3.94 ms"]  # 2.227 / 700 s + 3.04 GB / 4 TB/s


def test_no_limit_is_drawn_where_the_rates_were_not_measured(tmp_path: Path) -> None:
    figure = draw_unet_ticks(make_results(tmp_path, *TICKS, LIMITS[0]), STREAM)
    assert figure is not None
    assert figure.axes[0].get_legend() is None
    assert len(figure.axes[0].lines) == 0


def test_a_tick_is_stacked_from_its_parts(tmp_path: Path) -> None:
    figure = draw_tick(make_results(tmp_path, *make_stages(), *make_stages("whole", denoise=20.0)), STREAM)
    assert figure is not None
    whole, entering = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in bars_of(whole)] == [
        pytest.approx(piece) for piece in [(0, 3.7), (3.7, 12.4), (16.1, 0.5), (0, 3.7), (3.7, 20.0), (23.7, 0.5)]
    ]
    assert [label.get_text() for label in whole.get_yticklabels()] == ["tensorrt-rtx split", "tensorrt-rtx whole"]
    assert legend_of(whole) == ["enter: 3.70 / 3.70", "denoise: 12.40 / 20.00", "decode: 0.500 / 0.500"]
    assert [bar.get_width() for bar in bars_of(entering)[:4]] == pytest.approx([0.1, 0.6, 2.5, 0.5])
    assert legend_of(entering)[-1] == "rest: 0.500 / 0.500"


def test_parts_that_add_up_to_more_leave_no_rest(tmp_path: Path) -> None:
    figure = draw_tick(make_results(tmp_path, *make_stages(enter=3.1)), STREAM)
    assert figure is not None
    assert legend_of(figure.axes[1]) == ["see: 0.100", "encode: 0.600", "estimate_depth: 2.50"]


def test_an_enter_that_was_not_taken_apart_is_not_drawn_apart(tmp_path: Path) -> None:
    times = {"enter": 4.0, "denoise": 11.0, "decode": 0.6}
    torch = [make_entry(f"stage/{name}", ms, "torch-compile") for name, ms in times.items()]
    figure = draw_tick(make_results(tmp_path, *make_stages(), *torch), STREAM)
    assert figure is not None
    whole, entering = figure.axes
    assert [label.get_text() for label in whole.get_yticklabels()] == ["tensorrt-rtx split", "torch-compile"]
    assert [label.get_text() for label in entering.get_yticklabels()] == ["tensorrt-rtx split"]
    alone = draw_tick(make_results(tmp_path, *torch), STREAM)
    assert alone is not None
    assert len(alone.axes) == 1


def test_frames_along_an_axis_beside_pytorch_and_the_limit(tmp_path: Path) -> None:
    points = [*make_point(), *make_point(steps=1), *make_point(size=(1024, 576)), *make_point(depth="tiny")]
    plots = draw_plots(make_results(tmp_path, *LIMITS, *points))
    assert plots.keys() == {"unet", "latency", "steps", "sizes"}
    (axes,) = plots["steps"].axes
    drawn = {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert drawn["tensorrt-rtx, its best form"] == [[1, 62.5], [2, 62.5]]
    assert drawn["PyTorch, its best row"] == [[1, 50.0], [2, 50.0]]
    assert [rate for _, rate in drawn["limit"]] == pytest.approx([253.7] * 2, abs=0.1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["T = 1", "T = 2"]
    (axes,) = plots["sizes"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["512×512", "1024×576"]


def test_every_sample_is_in_a_histogram(tmp_path: Path) -> None:
    frames = make_entry("frame", 16.0, raw_ms=[15.0, 16.0, 16.0, 18.0])
    figure = draw_latency(make_results(tmp_path, frames, make_entry("frame_latency", 33.0)), STREAM)
    assert figure is not None
    intervals, latencies = figure.axes
    assert sum(bar.get_height() for bar in bars_of(intervals)) == 4
    assert sum(bar.get_height() for bar in bars_of(latencies)) == 3
    assert legend_of(intervals) == ["tensorrt-rtx split: p50 16.00 ms, p99 16.00 ms"]
    alone = draw_latency(make_results(tmp_path, frames), STREAM)
    assert alone is not None
    assert len(alone.axes) == 1


def test_of_pytorch_the_fastest_row_is_in_a_histogram(tmp_path: Path) -> None:
    backends = {"torch-eager": 60.0, "torch-compile": 17.0, "tensorrt-rtx": 16.0}
    figure = draw_latency(
        make_results(tmp_path, *(make_entry("frame", ms, who) for who, ms in backends.items())), STREAM
    )
    assert figure is not None
    assert [label.partition(":")[0] for label in legend_of(figure.axes[0])] == ["torch-compile", "tensorrt-rtx split"]


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    results = make_results(tmp_path, *LIMITS, *make_stages(decode=None))
    assert draw_plots(results) == {}
    everything = make_results(tmp_path, *TICKS, *make_stages(), make_entry("frame", 16.0))
    assert draw_plots(everything).keys() == {"unet", "tick", "latency"}
    assert draw_unet_ticks(everything, STREAM._replace(steps=3)) is None


def test_a_plot_says_where_its_figures_are_from(tmp_path: Path) -> None:
    figures = draw_plots(make_results(tmp_path, *TICKS, *make_stages(), make_entry("frame", 16.0)))
    for figure in figures.values():
        words = "\n".join(text.get_text() for text in figure.texts)
        for needed in ("512×512, T = 2", "NVIDIA T4", "driver 580.1", "2026-01-02", "3 samples each", "bench suite"):
            assert needed in words


def test_a_plot_is_a_small_picture(tmp_path: Path) -> None:
    figure = draw_unet_ticks(make_results(tmp_path, *TICKS), STREAM)
    assert figure is not None
    path = tmp_path / "plots" / "unet.png"
    save_plot(figure, path)
    assert imread(path).shape[1] == 800
    assert path.stat().st_size < 80_000
