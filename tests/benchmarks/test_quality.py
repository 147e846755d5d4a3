"""PSNR and SSIM are those of their definitions, and options are compared on a clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.benchmarks.bench_quality import measure_quality, read_named_options, read_options
from live2diff_trt.benchmarks.picture_quality import find_psnr_db, find_ssim
from live2diff_trt.benchmarks.point import BASES
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.frame import Image


def picture(seed: int = 0, side: int = 24) -> Image:
    return np.random.default_rng(seed).integers(40, 200, (side, side, 3), np.uint8)


def test_psnr_is_that_of_the_definition() -> None:
    one = picture()
    assert find_psnr_db(one, one) == math.inf
    assert find_psnr_db(one + np.uint8(5), one) == pytest.approx(10 * math.log10(255**2 / 25))


def test_ssim_of_equal_pictures_is_1_and_falls_with_noise() -> None:
    one = picture()
    noise = np.random.default_rng(1).integers(-20, 20, one.shape)
    little = (one + noise // 10).astype(np.uint8)
    much = (one + noise).astype(np.uint8)
    assert find_ssim(one, one) == pytest.approx(1)
    assert 1 > find_ssim(little, one) > find_ssim(much, one) > find_ssim(picture(2), one)
    assert find_ssim(much, one) == pytest.approx(find_ssim(one, much))


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    dark, light = (np.full((16, 16, 3), value, np.uint8) for value in (100, 120))
    stabiliser = (0.01 * 255) ** 2
    assert find_ssim(dark, light) == pytest.approx((2 * 100 * 120 + stabiliser) / (100**2 + 120**2 + stabiliser))


def test_ssim_of_one_window_is_that_of_the_definition() -> None:
    one, other = picture(3, 11), picture(4, 11)
    luma = np.array([0.299, 0.587, 0.114])
    x, y = one @ luma, other @ luma
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    wanted = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    wanted /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert find_ssim(one, other) == pytest.approx(wanted)


def test_options_are_read_by_the_names_of_their_fields() -> None:
    assert read_options("") == TensorRTOptions()
    assert read_options("form=whole,rows=4,refittable=true") == TensorRTOptions(form="whole", rows=4, refittable=True)
    assert read_named_options("one:backend=onnxruntime,threads=1") == ("one", OnnxRuntimeOptions(threads=1))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("form", "gives no option a value"),
        ("backend=tensorflow", "no backend tensorflow"),
        ("rank=4", "has no option rank"),
    ],
)
def test_options_that_are_none_are_refused(text: str, problem: str) -> None:
    with pytest.raises(MeasurementError, match=problem):
        read_options(text)
    with pytest.raises(MeasurementError, match="names no option"):
        read_named_options(text.replace(":", ""))


def test_options_are_compared_on_a_clip(tiny_bundle: Path, clip: Callable[[str], Path]) -> None:
    results = ResultsFile()
    once = read_options("backend=onnxruntime,threads=1")
    again = {"twice": read_options("backend=onnxruntime,threads=2")}
    point = replace(BASES["tiny"], seed=3)
    measure_quality(results, point, tiny_bundle, None, clip("bikes.mp4"), once, again, frames=9)
    (entry,) = results.entries
    assert (entry.name, entry.backend, entry.p50_ms) == ("quality/twice", "onnxruntime", None)
    assert entry.notes["frames"] == 9
    assert entry.notes["option"] == {"threads": 2}
    assert entry.notes["ssim"] > 0.999
    assert entry.notes["psnr_db"] is None or entry.notes["psnr_db"] > 50
