"""What two graphs have in common that differ in weights and names alone: plans of both run the same kernels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import count

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

_FOLDED_BYTES = 64
"""A constant of so few bytes may be written into a kernel."""
_Numbers = defaultdict[str, int]
"""Numbers in the place of names, in the order in which the names are met."""


def hash_structure(model: ModelProto, dimensions: Mapping[str, int], channels_last: Collection[str]) -> str:
    """Return a digest of operators, shapes and types, and of how everything is connected.

    Args:
        model: a graph; where its weights lie does not matter.
        dimensions: values of its symbolic dimensions.
        channels_last: inputs and outputs that lie in memory as channels last.
    """
    digest = hashlib.sha256()
    for part in _describe(model, dimensions, channels_last):
        digest.update(repr(part).encode() + b"\n")
    return digest.hexdigest()[:16]


def _describe(model: ModelProto, dimensions: Mapping[str, int], channels_last: Collection[str]) -> Iterator[object]:
    graph = model.graph
    numbers: _Numbers = defaultdict(count().__next__)
    yield sorted(dimensions.items())
    yield [(opset.domain, opset.version) for opset in model.opset_import]
    yield [function.SerializeToString(deterministic=True) for function in model.functions]
    for value in graph.input:
        yield _describe_border(value, numbers, channels_last)
    for node in graph.node:
        yield _describe_node(node, numbers)
    for value in graph.output:
        yield _describe_border(value, numbers, channels_last)
    yield sorted(_describe_constant(tensor, numbers) for tensor in graph.initializer)


def _describe_border(value: ValueInfoProto, numbers: _Numbers, channels_last: Collection[str]) -> object:
    return numbers[value.name], value.type.SerializeToString(deterministic=True), value.name in channels_last


def _describe_node(node: NodeProto, numbers: _Numbers) -> object:
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    connections = [numbers[name] for name in node.input], [numbers[name] for name in node.output]
    return node.domain, node.op_type, connections, attributes


def _describe_constant(tensor: TensorProto, numbers: _Numbers) -> tuple[int, int, list[int], bytes]:
    value = numpy_helper.to_array(tensor).tobytes() if _may_be_folded(tensor) else b""
    return numbers[tensor.name], tensor.data_type, list(tensor.dims), value


def _may_be_folded(tensor: TensorProto) -> bool:
    return tensor.data_location != TensorProto.EXTERNAL and len(tensor.raw_data) <= _FOLDED_BYTES
