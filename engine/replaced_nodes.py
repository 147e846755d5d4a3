"""Writes a graph's nodes of one operator in other operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import ModelProto, NodeProto


def replace_nodes(model: ModelProto, operator: str, replace: Callable[[NodeProto], Iterable[NodeProto]]) -> None:
    """Put in the place of every node of an ONNX operator what ``replace`` makes of it, in place."""
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += replace(node) if node.op_type == operator and not node.domain else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
