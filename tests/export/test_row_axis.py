"""A graph traced at a fixed number of rows takes any; one that can't is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.row_axis import export_rows

Tensors = tuple[Tensor, ...]


class IndependentRows(nn.Module):
    """Splits and joins axes as attention does, and leaves the rows alone."""

    def forward(self, tensors: Tensors) -> Tensors:
        (x,) = tensors
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        return ((heads * 2).transpose(1, 2).flatten(2),)


class JoinedRows(nn.Module):
    """Makes one axis of rows and positions."""

    def forward(self, tensors: Tensors) -> Tensors:
        (x,) = tensors
        return (x.flatten(0, 1).cumsum(0).unflatten(0, (x.shape[0], -1)),)


class CountedRows(nn.Module):
    """Repeats something as often as there are rows."""

    def forward(self, tensors: Tensors) -> Tensors:
        (x,) = tensors
        return (x[:1].expand(x.shape[0], -1, -1) + 0,)


def border(name: str) -> GraphSignature:
    shape = ("rows", 3, 8)
    return GraphSignature(name, (TensorSpec("x", shape, "float32"),), (TensorSpec("y", shape, "float32"),))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_graph_takes_any_number_of_rows(tmp_path: Path, rows: int) -> None:
    model = export_rows(IndependentRows(), border("independent"))
    assert [str(size) for size in model.graph.inputs[0].shape or ()] == ["rows", "3", "8"]
    assert [str(size) for size in model.graph.outputs[0].shape or ()] == ["rows", "3", "8"]
    onnx_ir.save(model, tmp_path / "graph.onnx")
    x = np.random.default_rng(0).standard_normal((rows, 3, 8)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(tmp_path / "graph.onnx").run(None, {"x": x})
    np.testing.assert_array_equal(y, IndependentRows()((torch.from_numpy(x),))[0].numpy())


@pytest.mark.parametrize("module", [JoinedRows(), CountedRows()])
def test_a_module_that_uses_the_number_of_rows_is_refused(module: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"depends on the number of rows.*Keep rows the first axis"):
        export_rows(module, border("dependent"))
