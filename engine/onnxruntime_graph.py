"""Adapts a bundle's graph to ONNX Runtime before it is opened; the bundle itself stays as it is.

ONNX Runtime has no kernel for GroupNormalization and runs the operator's definition instead: variance as the mean of
squares minus the square of the mean. That loses every digit where a group's mean is large beside its deviation, and
gives NaN where rounding makes it negative. Its InstanceNormalization kernel computes in two passes, and faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from live2diff_trt.bundle.errors import BundleError


def read_adapted_graph(path: Path) -> bytes:
    """Read a graph and return it as ``adapt_graph`` does; raise BundleError if the file is not an ONNX graph."""
    try:
        return adapt_graph(onnx.load(path, load_external_data=False))
    except (DecodeError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable ONNX graph ({error})", "Export the bundle again with `live2diff-trt export`"
        ) from error


def adapt_graph(model: ModelProto) -> bytes:
    """Replace every GroupNormalization, in place, and return the graph; its weights stay in their data file."""
    nodes = [replacement for node in model.graph.node for replacement in _adapt(node, model.graph)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _adapt(node: NodeProto, graph: GraphProto) -> Iterator[NodeProto]:
    if node.op_type == "GroupNormalization" and not node.domain:
        yield from _normalise_groups_as_instances(node, graph)
    else:
        yield node


def _normalise_groups_as_instances(node: NodeProto, graph: GraphProto) -> Iterator[NodeProto]:
    """[rows, channels, …] → [rows, groups, rest], normalised → [rows, channels, rest], scaled → the first shape."""
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
    ones, zeros = constant("ones", np.ones(groups, dtype)), constant("zeros", np.zeros(groups, dtype))
    yield make("Shape", [picture], "shape")
    yield make("Reshape", [picture, by_group], "grouped")
    yield make("InstanceNormalization", [name("grouped"), ones, zeros], "normalised", epsilon=epsilon)
    yield make("Reshape", [name("normalised"), by_channel], "channels")
    yield make("Unsqueeze", [scale, last_axis], "scale")
    yield make("Unsqueeze", [bias, last_axis], "bias")
    yield make("Mul", [name("channels"), name("scale")], "scaled")
    yield make("Add", [name("scaled"), name("bias")], "shifted")
    yield helper.make_node("Reshape", [name("shifted"), name("shape")], [output], name=node.name)
