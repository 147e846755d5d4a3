"""Everything that a point's process measures: on the CPU, and TensorRT's rows on an emulated GPU.

What is tested is that every backend computes the same, and that every figure is there; no time means anything here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from live2diff_trt.benchmarks import bench_frame, bench_kernels, bench_stages, limits, rows, unet_cases
from live2diff_trt.benchmarks.limits import LimitSizes
from live2diff_trt.benchmarks.measures import Extent, measure
from live2diff_trt.benchmarks.opened_rows import Place
from live2diff_trt.benchmarks.point import BASES, STEP_LISTS, Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import ONNX_ROW, SPLIT, WHOLE
from live2diff_trt.benchmarks.timing import MeasurementError
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import FLAVOUR, GPU, build_emulated_plans, install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache
from tests.runtime.emulated_streams import EmulatedStream

pytestmark = [pytest.mark.usefixtures("one_thread", "quickly"), pytest.mark.slow]

POINT = replace(BASES["tiny"], seed=3)  # that of the tiny bundle
EXTENT = Extent(samples=3, steady_ticks=4)
STAGES = {"see", "encode", "estimate_depth", "embed_depth", "enter", "denoise", "decode", "tick"}
KERNELS = {
    *("preprocess", "resize_bilinear", "depth_range", "depth_to_image", "enter", "lcm_step", "postprocess"),
    *("keep", "lcm_step_self", "lcm_step_full", "lcm_step_initialize"),
    "streaming_attention-all",
}


class EmulatedClock:
    """Takes the time of emulated work, which is done when somebody waits for it."""

    def __init__(self, stream: EmulatedStream) -> None:
        self._stream = stream
        self._began = 0.0

    def start(self) -> None:
        self._stream.sync()
        self._began = time.perf_counter()

    def stop(self) -> None:
        pass

    def elapsed_ms(self) -> float:
        self._stream.sync()
        return (time.perf_counter() - self._began) * 1000


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settle less: nothing here drifts."""
    monkeypatch.setattr(bench_frame, "_SETTLING", 1)
    monkeypatch.setattr(bench_frame, "_BLOCK", 2)
    monkeypatch.setattr(bench_frame, "_CHECKED_FRAMES", 10)
    monkeypatch.setattr(bench_stages, "_SETTLING", 1)
    monkeypatch.setattr(bench_kernels, "_MOST_COPIES", 2)
    monkeypatch.setattr(limits, "ON_CPU", LimitSizes(1 << 20, 64))


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphCache]:
    cache = GraphCache()
    yield cache
    cache.close()


@pytest.fixture
def emulated(graphs: GraphCache, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    for module in (bench_kernels, bench_stages, unet_cases):
        monkeypatch.setattr(module, "CudaCoreClock", EmulatedClock)
    monkeypatch.setattr(rows, "choose_flavour", lambda *_: (FLAVOUR, "it is emulated"))
    return install_emulated_gpu(monkeypatch, graphs)


def kinds_of(results: ResultsFile, prefix: str) -> dict[str, set[str]]:
    """Return who has which entries of a kind."""
    kinds: dict[str, set[str]] = {}
    for entry in results.entries:
        if entry.name.startswith(prefix):
            who = " ".join(filter(None, (entry.backend, entry.form)))
            kinds.setdefault(who, set()).add(entry.name.removeprefix(prefix))
    return kinds


def errors_of(results: ResultsFile, name: str) -> Mapping[str, float | None]:
    return {entry.form or entry.backend: entry.checked_error for entry in results.entries if entry.name == name}


def test_every_backend_of_the_cpu(tiny_bundle: Path, tmp_path: Path) -> None:
    results = ResultsFile()
    place = Place(tiny_bundle, None, None, kept=tmp_path)
    measure(
        results,
        POINT,
        place,
        rows.ROWS,
        ("limits", "unet", "frame", "latency", "steadiness", "stages", "kernels"),
        EXTENT,
    )
    assert kinds_of(results, "kernel/") == {"torch": {"copy", "matmul"}}
    for name, most in (("unet_tick", 1e-5), ("frame", 1e-3)):
        assert errors_of(results, name).keys() == {"torch-eager", "onnxruntime"}
        assert all(error is not None and error < most for error in errors_of(results, name).values())
    assert kinds_of(results, "frame_latency") == {"torch-eager": {"", "_beyond"}, "onnxruntime": {"", "_beyond"}}
    assert kinds_of(results, "stage/") == {"torch-eager": {"enter", "denoise", "decode", "tick"}}
    assert {entry.samples for entry in results.entries if entry.name != "kernel/copy"} >= {3}
    assert set(results.not_run) == {"torch-graph", "torch-compile", rows.SPLIT, rows.OVERLAP, rows.WHOLE, "kernels"}
    (tick,) = [entry for entry in results.entries if entry.name == "frame" and entry.backend == "onnxruntime"]
    assert tick.notes["cache_bytes"] == POINT.as_preset().spec().cache_bytes
    assert tick.notes["tflop"] > 0


def test_every_form_of_tensorrt_on_an_emulated_gpu(tiny_bundle: Path, tmp_path: Path, emulated: EmulatedGpu) -> None:
    for form in ("split", "whole"):
        build_emulated_plans(tiny_bundle, tmp_path, form, 2)
    results = ResultsFile()
    place = Place(tiny_bundle, tmp_path, GPU)
    what = ("unet", "frame", "latency", "steadiness", "stages", "kernels")
    measure(results, POINT, place, ("torch-eager", SPLIT, WHOLE), what, EXTENT)
    assert results.not_run == {}
    for name, most in (("unet_tick", 1e-4), ("frame", 1e-3)):
        errors = errors_of(results, name)
        assert errors.keys() == {"torch-eager", "split", "whole"}
        assert all(error is not None and error < most for error in errors.values()), errors
    assert kinds_of(results, "frame_latency").keys() == {"torch-eager", "tensorrt-rtx split", "tensorrt-rtx whole"}
    host = {"host_tick", "host_tick_page_locked"}
    beside = host | {"gather", "warm_up", "steady_frame"}
    assert kinds_of(results, "stage/") == {
        "tensorrt-rtx split": STAGES | beside,
        "tensorrt-rtx whole": STAGES | host,
    }
    assert kinds_of(results, "kernel/")["tensorrt-rtx split"] > KERNELS
    for entry in results.entries:
        if entry.name.startswith("kernel/"):
            assert entry.notes["bytes_read_and_written"] > 0


def test_a_point_of_another_t_streams_the_same_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    results = ResultsFile()
    point = replace(POINT, step_list=STEP_LISTS[3])
    measure(results, point, Place(tiny_bundle, None, None), (ONNX_ROW,), ("unet",), EXTENT)
    assert [(entry.name, entry.steps) for entry in results.entries] == [("unet_tick", 3)]
    assert results.not_run == {}


def test_what_computes_something_else_is_not_timed(tiny_bundle: Path) -> None:
    results = ResultsFile()
    other = replace(POINT, seed=4)  # other weights than the bundle's
    measure(results, other, Place(tiny_bundle, None, None), ("torch-eager", ONNX_ROW), ("unet", "frame"), EXTENT)
    assert {entry.backend for entry in results.entries} == {"torch-eager"}
    assert any("unet_tick of onnxruntime" in name for name in results.not_run)
    assert any("frame of onnxruntime" in name for name in results.not_run)


def test_rows_that_are_none_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(MeasurementError, match="no row is called tensorflow"):
        measure(ResultsFile(), POINT, Place(tiny_bundle, None, None), ("tensorflow",), ("unet",), EXTENT)


@pytest.mark.gpu
def test_every_row_of_pytorch_on_a_gpu(tiny_bundle: Path) -> None:
    results = ResultsFile()
    point: Point = POINT
    gpu = rows.find_gpu()
    assert gpu is not None
    assert torch.cuda.is_available()
    measure(results, point, Place(tiny_bundle, None, gpu), rows.TORCH_ROWS, ("unet", "frame", "stages"), EXTENT)
    assert errors_of(results, "frame").keys() == set(rows.TORCH_ROWS)
    assert results.not_run == {}
