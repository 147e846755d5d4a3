"""Points of the suite, and the work that each of them counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from live2diff_trt.benchmarks.count_work import count_work
from live2diff_trt.benchmarks.point import AXES, BASES, Point, choose_points, read_point
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.bundle.manifest import Bundle, Manifest
from live2diff_trt.export.presets import PRESETS


@pytest.mark.parametrize("base", BASES.values(), ids=list(BASES))
def test_the_base_points_are_the_presets(base: Point) -> None:
    assert base.as_preset() == replace(PRESETS[base.preset], width=base.width, height=base.height)
    assert Point.from_json(base.to_json()) == base


def test_an_axis_changes_one_thing() -> None:
    base = BASES["sd15"]
    points = choose_points(base, AXES)
    assert points[0] == base
    changed = [
        {name for name in vars(base) if getattr(point, name) != getattr(base, name)} - {"height"}
        for point in points[1:]
    ]
    assert changed == [{"step_list"}] * 3 + [{"width"}] * 2 + [{"autoencoder"}, {"depth"}]
    assert sorted(point.steps for point in points if point.step_list != base.step_list) == [1, 3, 4]
    assert len({point.name for point in points}) == len(points)
    assert len({point.bundle_name for point in points}) == 5  # points that differ in T share one


@pytest.mark.parametrize("axes", [("speed",), ()])
def test_axes_that_are_none_are_refused(axes: tuple[str, ...]) -> None:
    with pytest.raises(MeasurementError, match="no axis"):
        choose_points(BASES["tiny"], axes)


def test_a_bundle_says_which_point_it_is(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle, ())
    assert read_point(bundle) == replace(BASES["tiny"], seed=3)
    assert read_point(bundle, "kl").autoencoder == "kl"
    with pytest.raises(MeasurementError, match="no autoencoder vqgan"):
        read_point(bundle, "vqgan")


def test_weights_that_are_not_random_are_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle, ())
    real = {part: {"source": "file"} for part in bundle.manifest.weights}
    manifest = Manifest(**{**vars(bundle.manifest), "weights": real})
    with pytest.raises(MeasurementError, match="not random"):
        read_point(replace(bundle, manifest=manifest))
    other = Manifest(**{**vars(bundle.manifest), "network": {}})
    with pytest.raises(MeasurementError, match="no preset"):
        read_point(replace(bundle, manifest=other))


def test_the_work_of_the_base_point_is_that_of_the_design() -> None:
    work = count_work(BASES["sd15"])
    assert work["denoise"].tflop == pytest.approx(2.2035, abs=1e-3)
    assert work["denoise"].cache_bytes == 2 * 2 * 16 * 23_756_800 * 2
    frame = work["enter"].tflop + work["decode"].tflop
    assert frame == pytest.approx(0.641 + 0.009, abs=1e-3)  # and the depth path of the UNet
    assert work["tick"].tflop == pytest.approx(frame + work["denoise"].tflop)
    assert work["encode"].as_notes() == {"tflop": pytest.approx(0.1223, abs=1e-3)}
    assert work["tick"].as_notes().keys() == {"tflop", "cache_bytes"}


def test_work_grows_with_t() -> None:
    base = BASES["tiny"]
    one, two = (count_work(replace(base, step_list=steps)) for steps in ((30,), (30, 40)))
    assert two["denoise"].tflop == pytest.approx(2 * one["denoise"].tflop)
    assert two["denoise"].cache_bytes == 2 * one["denoise"].cache_bytes
    assert two["enter"] == one["enter"]
