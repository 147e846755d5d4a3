"""Who is measured side by side: the rows of a table, and which of them this machine can run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.errors import FlavourError, GpuError
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.gpu import Gpu, detect_gpu
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.tensorrt_options import TensorRTOptions

TORCH_ROWS = ("torch-eager", "torch-graph", "torch-compile")
ONNX_ROW = "onnxruntime"
SPLIT, OVERLAP, WHOLE = "tensorrt-split", "tensorrt-overlap", "tensorrt-whole"
TENSORRT_ROWS = (SPLIT, OVERLAP, WHOLE)
ROWS = (*TORCH_ROWS, ONNX_ROW, *TENSORRT_ROWS)
_FORMS: dict[str, Form] = {SPLIT: "split", OVERLAP: "split", WHOLE: "whole"}


class Label(NamedTuple):
    """How a row is named in the results."""

    backend: str
    form: str | None = None


class Chosen(NamedTuple):
    """The rows that this machine can run, in the order of ROWS, and why others can't be."""

    rows: tuple[str, ...]
    not_run: dict[str, str]


def choose_rows(names: Sequence[str], gpu: Gpu | None) -> Chosen:
    """Sort out which rows can run here; raise MeasurementError for a name that is no row's."""
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        raise MeasurementError(f"no row is called {', '.join(unknown) or 'nothing'}", f"Name some of {','.join(ROWS)}")
    obstacles = {name: _find_obstacle(name, gpu) for name in ROWS if name in names}
    return Chosen(
        tuple(name for name, obstacle in obstacles.items() if obstacle is None),
        {name: obstacle for name, obstacle in obstacles.items() if obstacle is not None},
    )


def best_rows(gpu: Gpu | None) -> tuple[str, ...]:
    """Return those that are measured away from the base point: TensorRT's best form, and of PyTorch what is fastest."""
    return ("torch-eager", ONNX_ROW) if gpu is None else ("torch-compile", SPLIT, OVERLAP)


def find_gpu() -> Gpu | None:
    """Return the first GPU; None where there is none, or nothing is installed that could use one."""
    try:
        return detect_gpu(0)
    except GpuError:
        return None


def tensorrt_options(row: str, plans: Path | None) -> TensorRTOptions:
    """Return the options that open one of TENSORRT_ROWS."""
    return TensorRTOptions(form=_FORMS[row], plans=plans, overlap=row == OVERLAP)


def label_of(row: str, gpu: Gpu | None) -> Label:
    """Return a row's label: TensorRT's rows are named by the flavour that runs on this GPU."""
    if row not in TENSORRT_ROWS:
        return Label(row)
    flavour, _ = choose_flavour("auto", None if gpu is None else gpu.compute_capability)
    return Label(flavour.name, "split+overlap" if row == OVERLAP else _FORMS[row])


def _find_obstacle(row: str, gpu: Gpu | None) -> str | None:
    """Return why a row can't run here, or None."""
    if row == "torch-eager":
        return None
    if row == ONNX_ROW:
        return _find_obstacle_of_onnxruntime(gpu)
    if gpu is None:
        return "it needs a GPU"
    if row in TENSORRT_ROWS:
        return _find_obstacle_of_tensorrt(gpu)
    return None


def _find_obstacle_of_onnxruntime(gpu: Gpu | None) -> str | None:
    if find_spec("onnxruntime") is None:
        return "ONNX Runtime is not installed"
    if gpu is not None and "CUDAExecutionProvider" not in import_module("onnxruntime").get_available_providers():
        return "the ONNX Runtime that is installed has no CUDAExecutionProvider: its GPU package is another one"
    return None


def _find_obstacle_of_tensorrt(gpu: Gpu) -> str | None:
    try:
        choose_flavour("auto", gpu.compute_capability)
    except FlavourError as error:
        return error.problem
    return None
