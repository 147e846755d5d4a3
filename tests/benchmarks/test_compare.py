"""What two results have in common, what became slower, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.benchmarks.compare import Comparison, Difference, compare
from live2diff_trt.benchmarks.results_file import ResultsError, read_results
from live2diff_trt.benchmarks.timing import MeasurementError
from tests.benchmarks.made_results import GPU, ROOT, VERSIONS, make_entry, make_results, write_results


def compare_entries(folder: Path, a: list[dict[str, Any]], b: list[dict[str, Any]], **changed: Any) -> Comparison:
    return compare(make_results(folder, *a), make_results(folder, *b, **changed))


def test_only_what_became_slower_by_more_than_the_threshold_is_a_regression(tmp_path: Path) -> None:
    before = {"frame": 16.0, "unet_tick": 10.0, "stage/enter": 4.0, "stage/decode": 2.0}
    after = {"frame": 12.0, "unet_tick": 12.5, "stage/enter": 5.04, "stage/decode": 2.0}
    comparison = compare_entries(
        tmp_path, [make_entry(*one) for one in before.items()], [make_entry(*one) for one in after.items()]
    )
    assert {pair.key.name: pair.ratio for pair in comparison.pairs} == pytest.approx(
        {"frame": 0.75, "unet_tick": 1.25, "stage/enter": 1.26, "stage/decode": 1.0}
    )
    assert [pair.key.name for pair in comparison.regressions(0.0)] == ["unet_tick", "stage/enter"]
    assert [pair.key.name for pair in comparison.regressions(0.25)] == ["stage/enter"]  # 1.25 is not beyond it
    assert comparison.regressions(0.3) == []


def test_entries_are_told_apart_by_everything_but_their_figures(tmp_path: Path) -> None:
    common = make_entry("frame", 16.0)
    others: list[dict[str, Any]] = [
        {"backend": "tensorrt"}, {"form": "whole"}, {"steps": 3}, {"height": 64}, {"width": 64}, {"dtype": "float32"},
    ]  # fmt: skip
    different = [make_entry("frame", 99.0, **other) for other in others]
    comparison = compare_entries(tmp_path, [common, *different[:3]], [*different[3:], common])
    assert [pair.ratio for pair in comparison.pairs] == [1.0]
    assert [(key.backend, key.form, key.steps) for key in comparison.only_a] == [
        ("tensorrt", None, 2),
        ("tensorrt-rtx", "whole", 2),
        ("tensorrt-rtx", "split", 3),
    ]
    assert [(key.height, key.width, key.dtype) for key in comparison.only_b] == [
        (64, 512, "float16"),
        (512, 64, "float16"),
        (512, 512, "float32"),
    ]


def test_what_was_not_timed_has_no_ratio(tmp_path: Path) -> None:
    entries = [make_entry("memory/session", None, notes={"fell_bytes": 5})]
    (pair,) = compare_entries(tmp_path, entries, entries).pairs
    assert (pair.a_ms, pair.ratio, pair.is_regression(0.0)) == (None, None, False)


def test_other_conditions_are_named_and_readings_are_none(tmp_path: Path) -> None:
    entries = [make_entry("frame", 16.0)]
    same = compare_entries(tmp_path, entries, entries, date="2026-05-06", clocks_before=None)
    assert same.differences == ()
    versions = {"torch": "2.12.0", "tensorrt": "11.4"}
    changed = compare_entries(
        tmp_path, entries, entries, gpu={**GPU, "driver": "590.2"}, versions=versions, **{"live2diff-trt": "0.2.0"}
    )
    assert changed.differences == (
        Difference("GPU's driver", "580.1", "590.2"),
        Difference("torch", VERSIONS["torch"], "2.12.0"),
        Difference("tensorrt-rtx-cu13", VERSIONS["tensorrt-rtx-cu13"], None),
        Difference("live2diff-trt", "0.1.0", "0.2.0"),
        Difference("tensorrt", None, "11.4"),
    )


def test_results_without_a_common_entry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no entry in common"):
        compare_entries(tmp_path, [make_entry("frame", 1.0)], [make_entry("unet_tick", 1.0)])


def test_a_real_file_is_read_whole() -> None:
    path = ROOT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3-2026-11-24.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    results = read_results(path)
    assert (results.file_name, results.date, results.command) == (path.name, "2026-11-24", contents["command"])
    assert [entry.p50_ms for entry in results.entries] == [entry["p50_ms"] for entry in contents["entries"]]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"command": "", "machine": {}, "frame_ms": {}}',
        '{"environment": {}, "command": "", "entries": []}',
    ],
)
def test_another_format_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match="another format"):
        read_results(path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("entries", {}),
        ("entries", ["frame"]),
        ("entries", [{"name": "frame"}]),
        ("environment", {"gpu": None}),
        ("x", 1),
    ],
)
def test_a_file_with_another_part_is_refused(tmp_path: Path, part: str, value: object) -> None:
    path = write_results(tmp_path / "a.json", make_entry("frame", 16.0))
    contents = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**contents, part: value}), encoding="utf-8")
    with pytest.raises(ResultsError, match="another format"):
        read_results(path)


def test_what_is_no_json_or_not_there_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"entries": [', encoding="utf-8")
    for path in (broken, tmp_path / "absent.json", tmp_path):
        with pytest.raises(ResultsError, match="can't be read"):
            read_results(path)


def test_entries_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    frame = make_entry("frame", 16.0)
    with pytest.raises(ResultsError, match="twice"):
        make_results(tmp_path, frame, frame)
    for wrong in (0.0, -1.0, "16"):
        with pytest.raises(ResultsError, match="is no time"):
            make_results(tmp_path, {**frame, "p50_ms": wrong})
    with pytest.raises(MeasurementError, match="no entry is called"):
        read_results(write_results(tmp_path / "a.json", {**frame, "name": "speed"}))
