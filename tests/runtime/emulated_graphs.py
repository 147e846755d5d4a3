"""What an emulated plan holds: a graph, built by the real builder but for TensorRT, and opened by ONNX Runtime."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx
from onnx import helper

from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.engine.plan import PlanTensor
from live2diff_trt.engine.plan_builder import PlanOptions, fix_dimensions
from tests.runtime.emulated_device import Array
from tests.runtime.emulated_streams import EmulationError

_READING_VALUES = Lock()
"""numpy reads headers by Python's own parser, which in Python 3.11 can't be in several threads at once."""


def build_emulated_plan(
    flavour: Flavour,
    name: str,
    model: bytes,
    model_path: Path,
    options: PlanOptions,
    on_phase: Callable[[str, int, int], None] = lambda *_: None,
) -> bytes:
    """Return a plan that is its graph, with what TensorRT would have been told. Stands for ``build_plan``."""
    graph = onnx.load_model_from_string(model)
    fix_dimensions(graph, options.dimensions)
    values = io.BytesIO()
    np.savez(values, **options.values)  # type: ignore[arg-type] # names are those of initialisers
    header = {
        "weights": str(model_path.parent),
        "channels_last": sorted(options.channels_last),
        "refittable": options.refittable,
        "values": len(values.getvalue()),
    }
    on_phase("emulating", 1, 1)
    return b"".join([json.dumps(header).encode(), b"\n", values.getvalue(), graph.SerializeToString()])


def read_emulated_plan(plan: bytes) -> tuple[dict[str, Any], dict[str, Array], bytes]:
    """Return what ``build_emulated_plan`` was told, the values that it was built with, and the graph."""
    header, _, rest = plan.partition(b"\n")
    told = json.loads(header)
    with _READING_VALUES, np.load(io.BytesIO(rest[: told["values"]])) as values:
        return told, dict(values), rest[told["values"] :]


@dataclass(frozen=True)
class OpenedGraph:
    """What is shared by all plans of the same bytes and weights."""

    graph: OnnxGraph
    tensors: Mapping[str, PlanTensor]
    channels_last: frozenset[str]
    weights: frozenset[str]


class GraphCache:
    """Graphs that were opened, by the bytes of their plans: opening one takes longer than running it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="emulated-plans-"))
        self._opened: dict[str, OpenedGraph] = {}
        self._opening = Lock()

    def open(self, plan: bytes, weights: Mapping[str, Array] | None = None) -> OpenedGraph:
        """Open a plan with weights in the place of its own, or return it as it was opened before."""
        weights = weights or {}
        digest = hashlib.sha256(plan)
        for weight, values in sorted(weights.items()):
            digest.update(weight.encode() + values.tobytes())
        name = digest.hexdigest()[:16]
        with self._opening:
            if name not in self._opened:
                self._opened[name] = self._open(name, plan, weights)
            return self._opened[name]

    def close(self) -> None:
        """Remove the files."""
        self._opened.clear()
        shutil.rmtree(self._folder)

    def _open(self, name: str, plan: bytes, weights: Mapping[str, Array]) -> OpenedGraph:
        options, built_with, model = read_emulated_plan(plan)
        for path in Path(options["weights"]).glob("*.data"):  # ONNX Runtime takes no links
            if not (self._folder / path.name).exists():
                shutil.copy(path, self._folder)
        (self._folder / f"{name}.onnx").write_bytes(model)
        graph = onnx.load_model_from_string(model).graph
        inputs, outputs = ([_describe(value) for value in values] for values in (graph.input, graph.output))
        tensors = [
            PlanTensor(spec.name, tuple(map(int, spec.shape)), spec.dtype, is_input)
            for specs, is_input in ((inputs, True), (outputs, False))
            for spec in specs
        ]
        signature = GraphSignature(name, tuple(inputs), tuple(outputs))
        values = {**built_with, **weights}
        opened = OnnxGraphs(self._folder, [signature], OnnxRuntimeOptions(threads=1), values).open(name)
        return OpenedGraph(
            opened, {tensor.name: tensor for tensor in tensors}, frozenset(options["channels_last"]), weights_of(graph)
        )


def weights_of(graph: onnx.GraphProto) -> frozenset[str]:
    """Return what lies in a data file."""
    return frozenset(one.name for one in graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL)


def _describe(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_value for dimension in tensor.shape.dim)
    if 0 in shape:
        raise EmulationError(f"{value.name} is {shape}: plans have static shapes")
    return TensorSpec(value.name, shape, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
