"""Exports a network of independent rows: traced at a fixed number of them, the axis is freed in the graph.

A trace with a symbolic row axis takes more than twice as long, and all it adds is shape arithmetic. Here rows are the
first axis of every tensor and no operator mixes them, so the number stands in Reshapes alone, where −1 lets it follow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir.convenience import get_const_tensor
from torch import nn

from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.onnx_graph import export_graph

ROWS = "rows"
TRACED_ROWS = 61
"""A prime that is no channel count, so that it can be told from every other size. Under 64: diffusers' upsampler takes
another path from there."""


def export_rows(module: nn.Module, signature: GraphSignature) -> onnx_ir.Model:
    """Trace ``module`` (see ``export_graph``), whose only symbolic axis is ``rows``, the first.

    Raises:
        ExportError: if the graph is not the signature's, or uses the number of rows in a way that can't be freed.
    """
    fixed = replace(signature, inputs=_fix_rows(signature.inputs), outputs=_fix_rows(signature.outputs))
    model = export_graph(module, fixed)
    _free_rows(model)
    return model


def _fix_rows(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=tuple(TRACED_ROWS if size == ROWS else size for size in spec.shape)) for spec in specs
    )


def _free_rows(model: onnx_ir.Model) -> None:
    """Let every tensor that was traced with that number of rows have any, in place."""
    for node in list(model.graph):
        _free_operands(node)
    for value in [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]:
        if value.shape is not None and TRACED_ROWS in value.shape[:1]:
            value.shape = onnx_ir.Shape([ROWS, *value.shape[1:]])


def _free_operands(node: onnx_ir.Node) -> None:
    """Replace the number of rows in the sizes that a Reshape is given; refuse it, and what is made of it, elsewhere."""
    for index, operand in enumerate(node.inputs):
        constant = get_const_tensor(operand) if operand is not None else None
        if constant is None or constant.dtype != onnx_ir.DataType.INT64:
            continue
        sizes = np.atleast_1d(constant.numpy())
        traced = (sizes != 0) & (sizes % TRACED_ROWS == 0)
        if not traced.any():
            continue
        if node.op_type != "Reshape" or sizes[0] != TRACED_ROWS or traced[1:].any() or node.graph is None:
            raise ExportError(f"{node.name} ({node.op_type}) depends on the number of rows", "Keep rows the first axis")
        freed = onnx_ir.tensor(np.array([-1, *sizes[1:]], np.int64), name=f"{node.name}_sizes")
        constant_node = onnx_ir.node("Constant", [], attributes={"value": freed}, name=freed.name)
        constant_node.outputs[0].name = freed.name
        node.graph.insert_before(node, constant_node)
        node.replace_input_with(index, constant_node.outputs[0])
