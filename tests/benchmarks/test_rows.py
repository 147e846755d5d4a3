"""Which rows a machine can run, and why others not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from live2diff_trt.benchmarks import rows
from live2diff_trt.benchmarks.rows import (
    ONNX_ROW,
    OVERLAP,
    REFITTABLE,
    ROWS,
    SPLIT,
    WHOLE,
    Label,
    choose_builders,
    choose_rows,
    label_of,
)
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.errors import FlavourError, GpuError
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu import Gpu

GPU = Gpu("NVIDIA T4", (7, 5), "580.1")


@pytest.fixture
def flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "choose_flavour", lambda *_: (Flavour("tensorrt-rtx", "1.6", None), "it is there"))


def test_without_a_gpu_there_are_two() -> None:
    chosen = choose_rows(ROWS, None)
    assert chosen.rows == ("torch-eager", ONNX_ROW)
    assert set(chosen.not_run) == set(ROWS) - set(chosen.rows)
    assert set(chosen.not_run.values()) == {"it needs a GPU"}


@pytest.mark.usefixtures("flavour")
def test_onnxruntime_runs_on_the_gpu_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose_rows(ROWS, GPU)
    assert REFITTABLE not in chosen.rows
    assert REFITTABLE in choose_rows((REFITTABLE,), GPU).rows
    assert "CUDAExecutionProvider" in chosen.not_run[ONNX_ROW]
    assert {SPLIT, OVERLAP, WHOLE, "torch-eager", "torch-graph", "torch-compile"} <= set(chosen.rows)
    runtime = SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(rows, "import_onnxruntime", lambda: runtime)
    assert ONNX_ROW in choose_rows(ROWS, GPU).rows


def test_without_tensorrt_its_rows_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FlavourError("no flavour of TensorRT can be used", "Install one")

    monkeypatch.setattr(rows, "choose_flavour", refuse)
    chosen = choose_rows((WHOLE, SPLIT, "torch-graph"), GPU)
    assert chosen.rows == ("torch-graph",)
    assert chosen.not_run == dict.fromkeys((SPLIT, WHOLE), "no flavour of TensorRT can be used")


@pytest.mark.parametrize("names", [("split",), ()])
def test_names_that_are_none_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(MeasurementError, match="no row is called"):
        choose_rows(names, None)


@pytest.mark.usefixtures("flavour")
def test_rows_are_labelled_by_backend_and_form() -> None:
    assert [label_of(row, GPU) for row in (SPLIT, OVERLAP, WHOLE, REFITTABLE, ONNX_ROW, "torch-graph")] == [
        Label("tensorrt-rtx", "split"),
        Label("tensorrt-rtx", "split+overlap"),
        Label("tensorrt-rtx", "whole"),
        Label("tensorrt-rtx", "split+refittable"),
        Label("onnxruntime"),
        Label("torch-graph"),
    ]
    options = [rows.tensorrt_options(row, Path("plans")) for row in (SPLIT, OVERLAP, WHOLE, REFITTABLE)]
    assert [one.form for one in options] == ["split", "split", "whole", "split"]
    assert [one.overlap for one in options] == [False, True, False, False]
    assert [one.refittable for one in options] == [False, False, False, True]


def test_rows_that_share_plans_build_them_once() -> None:
    assert choose_builders(("torch-graph", WHOLE, OVERLAP, SPLIT, REFITTABLE)) == (WHOLE, OVERLAP, REFITTABLE)


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise GpuError("no cuda-core", "Install it")

    monkeypatch.setattr(rows, "detect_gpu", refuse)
    assert rows.find_gpu() is None
    assert rows.best_rows(None) == ("torch-eager", ONNX_ROW)
    assert rows.best_rows(GPU) == ("torch-compile", SPLIT, OVERLAP)
