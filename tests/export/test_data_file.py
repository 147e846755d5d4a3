"""Graphs that share a data file: every weight stands there once, and none under another's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from live2diff_trt.export.data_file import write_graphs
from live2diff_trt.export.errors import ExportError

WEIGHT = np.arange(12, dtype=np.float16).reshape(3, 4)


def make_graph(name: str, weight: NDArray[np.float16]) -> onnx_ir.Model:
    """Return a graph that gives its one weight."""
    value = onnx_ir.Value(name="weight", const_value=onnx_ir.tensor(weight, name="weight"))
    node = onnx_ir.node("Identity", [value], name="give")
    node.outputs[0].name = "given"
    graph = onnx_ir.Graph([], node.outputs, nodes=[node], initializers=[value], name=name, opset_imports={"": 21})
    return onnx_ir.Model(graph, ir_version=10)


def read_weight(folder: Path, name: str) -> NDArray[np.float16]:
    (tensor,) = onnx.load(folder / f"{name}.onnx").graph.initializer
    return numpy_helper.to_array(tensor)


@pytest.mark.parametrize("other", [WEIGHT, WEIGHT.copy()], ids=["the same memory", "a copy"])
def test_a_weight_of_two_graphs_is_written_once(tmp_path: Path, other: NDArray[np.float16]) -> None:
    write_graphs(tmp_path, [make_graph("one", WEIGHT), make_graph("two", other)], "shared.data")
    assert (tmp_path / "shared.data").stat().st_size == WEIGHT.nbytes
    for name in ("one", "two"):
        assert np.array_equal(read_weight(tmp_path, name), WEIGHT)


def test_the_same_memory_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten seconds of a full-size network."""

    def refuse(*_: object, **__: object) -> bool:
        raise AssertionError("it is the same memory")

    monkeypatch.setattr("live2diff_trt.export.data_file.np.array_equal", refuse)
    write_graphs(tmp_path, [make_graph("one", WEIGHT), make_graph("two", WEIGHT)], "shared.data")


@pytest.mark.parametrize(
    "other",
    [WEIGHT + 1, WEIGHT.reshape(4, 3), WEIGHT.astype(np.float32), WEIGHT[::-1]],
    ids=["values", "shape", "dtype", "order"],
)
def test_different_weights_of_one_name_are_refused(tmp_path: Path, other: NDArray[np.float16]) -> None:
    with pytest.raises(ExportError, match="two graphs have different weights called weight"):
        write_graphs(tmp_path, [make_graph("one", WEIGHT), make_graph("two", other)], "shared.data")
