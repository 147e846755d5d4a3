"""Writes a graph's group norms in other operators, where a backend's own are not exact."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from live2diff_trt.engine.replaced_nodes import replace_nodes

_OPERATOR = "GroupNormalization"
_FEW_VALUES = 8
"""TensorRT-RTX 1.6.1 is off by up to 3e-2 in groups of two values, where its variance loses its digits, and exact to
1e-5 in groups of so many."""


def as_instance_norms(model: ModelProto) -> None:
    """Replace every group norm by an instance norm over its groups, in place."""
    replace_nodes(model, _OPERATOR, lambda node: _normalise_groups(node, model.graph))


def as_layer_norms_where_groups_are_small(model: ModelProto) -> None:
    """Replace every group norm of fewer than 8 values by a layer norm over its groups, in place.

    Shapes must be static but for the rows.
    """
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info)
    }

    def replace(node: NodeProto) -> Iterable[NodeProto]:
        (groups,) = (helper.get_attribute_value(one) for one in node.attribute if one.name == "num_groups")
        values = math.prod(shapes[node.input[0]][1:]) // groups
        return _normalise_groups(node, model.graph, values) if values < _FEW_VALUES else [node]

    replace_nodes(model, _OPERATOR, replace)


def _normalise_groups(node: NodeProto, graph: GraphProto, group_values: int | None = None) -> Iterator[NodeProto]:
    """[rows, channels, …] → [rows, groups, rest], normalised → [rows, channels, rest], scaled → the first shape.

    By a layer norm over ``group_values``, or, where that is None, an instance norm.
    """
    picture, scale, bias = node.input
    (output,) = node.output
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    groups, epsilon = attributes["num_groups"], attributes.get("epsilon", 1e-5)
    weight = next(initialiser for initialiser in graph.initializer if initialiser.name == scale)

    def name(part: str) -> str:
        return f"{output}/{part}"

    def constant(part: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, name(part)))
        return name(part)

    def make(operator: str, inputs: list[str], part: str, epsilon: float | None = None) -> NodeProto:
        return helper.make_node(operator, inputs, [name(part)], name=name(part), epsilon=epsilon)

    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    by_group = constant("by_group", np.array([0, groups, -1]))
    by_channel = constant("by_channel", np.array([0, weight.dims[0], -1]))
    last_axis = constant("last_axis", np.array([1]))
    count = groups if group_values is None else group_values
    operator = "InstanceNormalization" if group_values is None else "LayerNormalization"
    ones, zeros = constant("ones", np.ones(count, dtype)), constant("zeros", np.zeros(count, dtype))
    yield make("Shape", [picture], "shape")
    yield make("Reshape", [picture, by_group], "grouped")
    yield make(operator, [name("grouped"), ones, zeros], "normalised", epsilon=epsilon)
    yield make("Reshape", [name("normalised"), by_channel], "channels")
    yield make("Unsqueeze", [scale, last_axis], "scale")
    yield make("Unsqueeze", [bias, last_axis], "bias")
    yield make("Mul", [name("channels"), name("scale")], "scaled")
    yield make("Add", [name("scaled"), name("bias")], "shifted")
    yield helper.make_node("Reshape", [name("shifted"), name("shape")], [output], name=node.name)
