"""Ways of running a bundle are named by their options and compared on a clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from live2diff_trt.benchmarks.bench_quality import measure_quality, read_named_options, read_options
from live2diff_trt.benchmarks.point import BASES
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions


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
