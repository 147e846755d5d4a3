"""Writes a graph's GELUs in float32, where a backend's are not exact in float16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import ModelProto, NodeProto, TensorProto, helper

from live2diff_trt.engine.replaced_nodes import replace_nodes


def in_float32(model: ModelProto) -> None:
    """Put casts round every GELU of a float16 value, in place.

    What TensorRT-RTX 1.6.1 makes of a GELU and the product behind it (GEGLU) in float16 is off by up to 1e-1, and by
    rounding alone with the casts; see docs/tensorrt.md.
    """
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }

    def replace(node: NodeProto) -> Iterable[NodeProto]:
        return _compute_in_float32(node) if types.get(node.input[0]) == TensorProto.FLOAT16 else [node]

    replace_nodes(model, "Gelu", replace)


def _compute_in_float32(node: NodeProto) -> Iterator[NodeProto]:
    (given,), (output,) = node.input, node.output
    exact_given, exact = f"{output}/given_float32", f"{output}/float32"
    yield helper.make_node("Cast", [given], [exact_given], name=exact_given, to=TensorProto.FLOAT)
    gelu = NodeProto()
    gelu.CopyFrom(node)
    gelu.input[:] = [exact_given]
    gelu.output[:] = [exact]
    yield gelu
    yield helper.make_node("Cast", [exact], [output], name=f"{output}/float16", to=TensorProto.FLOAT16)
