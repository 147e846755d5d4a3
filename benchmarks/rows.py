"""Who is measured side by side: the rows of a table, and which of them this machine can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.errors import FlavourError, GpuError
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.gpu import Gpu, detect_gpu
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.onnxruntime_module import import_onnxruntime
from live2diff_trt.engine.tensorrt_options import TensorRTOptions

TORCH_ROWS = ("torch-eager", "torch-graph", "torch-compile")
ONNX_ROW = "onnxruntime"
SPLIT, OVERLAP, WHOLE = "tensorrt-split", "tensorrt-overlap", "tensorrt-whole"
REFITTABLE = "tensorrt-refittable"
"""The split form, its weights exchangeable. Not every package of TensorRT builds that: it is run where it is named."""
TENSORRT_ROWS = (SPLIT, OVERLAP, WHOLE, REFITTABLE)
ROWS = (*TORCH_ROWS, ONNX_ROW, SPLIT, OVERLAP, WHOLE)
"""What is run unless rows are named."""
_KNOWN_ROWS = (*ROWS, REFITTABLE)
_OPTIONS = {
    SPLIT: TensorRTOptions(form="split", overlap=False),
    OVERLAP: TensorRTOptions(form="split", overlap=True),
    WHOLE: TensorRTOptions(form="whole", overlap=False),
    REFITTABLE: TensorRTOptions(form="split", overlap=False, refittable=True),
}
_FORMS = {SPLIT: "split", OVERLAP: "split+overlap", WHOLE: "whole", REFITTABLE: "split+refittable"}


class Label(NamedTuple):
    """How a row is named in the results."""

    backend: str
    form: str | None = None


class Chosen(NamedTuple):
    """The rows that this machine can run, in a fixed order, and why others can't be."""

    rows: tuple[str, ...]
    not_run: dict[str, str]


def choose_rows(names: Sequence[str], gpu: Gpu | None) -> Chosen:
    """Sort out which rows can run here; raise MeasurementError for a name that is no row's."""
    unknown = [name for name in names if name not in _KNOWN_ROWS]
    if unknown or not names:
        known = ",".join(_KNOWN_ROWS)
        raise MeasurementError(f"no row is called {', '.join(unknown) or 'nothing'}", f"Name some of {known}")
    obstacles = {name: _find_obstacle(name, gpu) for name in _KNOWN_ROWS if name in names}
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
    return replace(_OPTIONS[row], plans=plans)


def onnxruntime_options(gpu: Gpu | None) -> OnnxRuntimeOptions:
    """Return the options that open ONNX_ROW."""
    return OnnxRuntimeOptions(provider="cpu" if gpu is None else "cuda")


def plan_options(row: str) -> tuple[str, ...]:
    """Return what ``build`` is told to make the plans of one of TENSORRT_ROWS; rows with the same share them."""
    options = _OPTIONS[row]
    return ("--form", options.form, *(["--refittable"] if options.refittable else []))


def choose_builders(rows: Sequence[str]) -> tuple[str, ...]:
    """Return, of TensorRT's rows, the first of those that share plans."""
    builders: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row in TENSORRT_ROWS:
            builders.setdefault(plan_options(row), row)
    return tuple(builders.values())


def label_of(row: str, gpu: Gpu | None) -> Label:
    """Return a row's label: TensorRT's rows are named by the flavour that runs on this GPU."""
    if row not in TENSORRT_ROWS:
        return Label(row)
    flavour, _ = choose_flavour("auto", None if gpu is None else gpu.compute_capability)
    return Label(flavour.name, _FORMS[row])


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
    if gpu is not None and "CUDAExecutionProvider" not in import_onnxruntime().get_available_providers():
        return "the ONNX Runtime that is installed has no CUDAExecutionProvider: its GPU package is another one"
    return None


def _find_obstacle_of_tensorrt(gpu: Gpu) -> str | None:
    try:
        choose_flavour("auto", gpu.compute_capability)
    except FlavourError as error:
        return error.problem
    return None
