"""What is to be reached, told from the entries of the base point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from live2diff_trt.benchmarks.targets import Target, find_targets
from live2diff_trt.benchmarks.timed import find_streams
from tests.benchmarks.made_results import make_entry, make_results

MEASURED = [
    make_entry("unet_tick", 10.0),
    make_entry("unet_tick", 12.5, form="whole"),
    make_entry("unet_tick", 1.0, "torch-compile"),
    make_entry("frame", 16.0),
    make_entry("frame", 12.5, form="split+overlap"),
    make_entry("frame_latency_beyond", 15.0),
    make_entry("frame_latency_beyond", 20.0, form="split+overlap"),
    make_entry("stage/enter", 4.0),
    make_entry("stage/decode", 1.0),
    make_entry("stage/steady_frame", 10.0, form="split+overlap", p99_ms=12.0, samples=2000),
    make_entry("stage/host_tick_page_locked", 0.08),
    make_entry("stage/host_tick", 0.15),
]


def find(folder: Path, *entries: dict[str, Any]) -> list[Target]:
    results = make_results(folder, *entries)
    return list(find_targets(results, find_streams(results)[0]))


def test_every_target_has_a_verdict(tmp_path: Path) -> None:
    found = [(round(target.measured, 3), target.verdict) for target in find(tmp_path, *MEASURED)]
    assert found == [
        (10.0, "met, short of the aim"),
        (80.0, "met, short of the aim"),
        (1.0, "met"),  # 15 of 4 + 10 + 1 ms
        (1.6, "met"),  # 20 of 12.5 ms
        (1.2, "**missed**"),
        (0.08, "met"),
        (0.15, "met, short of the aim"),
        (0.8, "reported"),
    ]


def test_bounds_are_shown_with_their_direction(tmp_path: Path) -> None:
    tick, frames, *_ = find(tmp_path, *MEASURED)
    assert (tick.show_bound(tick.must), tick.show_bound(tick.aim), tick.show(tick.measured)) == (
        *("≤ 11.5 ms", "≤ 9 ms", "10 ms"),
    )
    assert (frames.show_bound(frames.must), frames.show_bound(None)) == ("≥ 60 FPS", "")


def test_what_was_not_measured_has_no_target(tmp_path: Path) -> None:
    assert find(tmp_path, make_entry("unet_tick", 1.0, "torch-compile")) == []
    assert [target.what for target in find(tmp_path, make_entry("unet_tick", 8.0))] == ["UNet tick, split"]
