"""Finds in a UNet's graph what kernels of ours compute instead of TensorRT.

Temporal attention is a node of its own, since it looks at caches. The others are recognised by their nodes, so that the
graph stays plain ONNX that any runtime runs. TensorRT-RTX is far from the GPU's limit in them: its group norm runs on a
few multiprocessors, its GELU holds the matrix units up, and its attention takes twice the time that it could.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto

from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP
from live2diff_trt.bundle.spec import KvCacheSpec, StreamSpec
from live2diff_trt.engine.split import (
    Cut,
    GatedGeluCut,
    GroupNormCut,
    SpatialAttentionCut,
    TemporalAttentionCut,
    inputs_of,
)
from live2diff_trt.engine.unet_graph import UNetGraph, attribute


@dataclass(frozen=True, eq=False)
class Island:
    """What a kernel computes: a few nodes, all of whose results but the last nobody else reads.

    Attributes:
        cut: what it is, by names of the graph's values.
        nodes: indices of its nodes.
    """

    cut: Cut
    nodes: frozenset[int]

    @property
    def reads(self) -> tuple[str, ...]:
        """Values it reads that are not weights."""
        return inputs_of(self.cut)


def find_islands(graph: UNetGraph, spec: StreamSpec) -> list[Island]:
    """Return the islands in the order of their results; raise BundleError if temporal attentions are not the spec's."""
    finders = {
        "GroupNormalization": _find_group_norm,
        "Softmax": _find_spatial_attention,
        "Gelu": _find_gated_gelu,
    }
    found = list(_find_temporal_attentions(graph, spec))
    for node in graph.nodes:
        finder = finders.get(node.op_type)
        island = None if finder is None or node.domain else finder(graph, node)
        if island is not None:
            found.append(island)
    return sorted(found, key=lambda island: graph.producers[island.cut.out])


def is_temporal_attention(node: NodeProto) -> bool:
    """Whether a node is a temporal attention."""
    return (node.domain, node.op_type) == (TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP)


def is_projection(graph: UNetGraph, name: str, source: str) -> bool:
    """Whether a value is a product of ``source`` with weights that only one node reads."""
    product = graph.made_by(name, "MatMul")
    return product is not None and product.input[0] == source and product.input[1] in graph.constants


def _island(graph: UNetGraph, cut: Cut, *nodes: NodeProto) -> Island:
    return Island(cut, frozenset(graph.producers[node.output[0]] for node in nodes))


# temporal attention


def _find_temporal_attentions(graph: UNetGraph, spec: StreamSpec) -> Iterator[Island]:
    nodes = [node for node in graph.nodes if is_temporal_attention(node)]
    if len(nodes) != len(spec.kv_caches):
        raise graph.refusal(f"is not a chain of {len(spec.kv_caches)} temporal attentions: it has {len(nodes)}")
    for node, cache in zip(nodes, spec.kv_caches, strict=True):
        _check_temporal_attention(graph, node, cache, spec)
        q, k, v, _past_k, _past_v, pe_q, pe_k, pe_v = node.input[:8]
        yield _island(graph, TemporalAttentionCut(cache.name, q, k, v, node.output[0], (pe_q, pe_k, pe_v)), node)


def _check_temporal_attention(graph: UNetGraph, node: NodeProto, cache: KvCacheSpec, spec: StreamSpec) -> None:
    """Refuse an attention that is not the cache's, or whose tensors are not what the signature says."""
    sides = [f"{side}.{cache.name}" for side in ("new_k", "new_v", "past_k", "past_v")]
    window = ["position", "past_position", "past_bias"]
    if [*node.input[1:5], *node.input[8:]] != [*sides, *window]:
        raise graph.refusal(f"has {node.name} where the attention of {cache.name} belongs")
    query = graph.producer(node.input[0])
    source = query.input[0] if query is not None else ""
    shapes = {name: graph.row_shape(name) for name in (*node.input[:3], *node.output)}
    wrong = [name for name, shape in shapes.items() if shape != (cache.positions, cache.channels)]
    wrong += [name for name in shapes if graph.dtype(name) != spec.dtype]
    wrong += [name for name in node.input[:3] if not is_projection(graph, name, source)]
    wrong += [
        name
        for name in node.input[5:8]
        if name not in graph.initialisers or tuple(graph.initialisers[name].dims) != (spec.window, cache.channels)
    ]
    if wrong:
        raise graph.refusal(f"gives the attention of {cache.name} a {wrong[0]} that is not as the manifest says")
    if attribute(node, "heads") != spec.heads:
        raise graph.refusal(
            f"has {attribute(node, 'heads')} heads in the attention of {cache.name}, its manifest {spec.heads}"
        )


# spatial attention


def _find_spatial_attention(graph: UNetGraph, softmax: NodeProto) -> Island | None:
    """Match softmax(q·scale · kᵀ) · v by head, whose q, k and v are one product, or k and v are the prompt's."""
    scores = graph.made_by(softmax.input[0], "MatMul")
    weighted = graph.only_reader(softmax.output[0], "MatMul")
    if scores is None or weighted is None or weighted.input[0] != softmax.output[0]:
        return None
    scaling, turning = graph.made_by(scores.input[0], "Mul"), graph.made_by(scores.input[1], "Transpose")
    if scaling is None or turning is None or list(attribute(turning, "perm")) != [0, 1, 3, 2]:
        return None
    q, k, v = (_by_head(graph, name) for name in (scaling.input[0], turning.input[0], weighted.input[1]))
    joined = _joined(graph, weighted.output[0])
    if q is None or k is None or v is None or joined is None:
        return None
    heads, head_channels = _heads(graph, scaling.input[0])
    scale = graph.constant_value(scaling.input[1])
    if scale is None or not math.isclose(float(scale), head_channels**-0.5, rel_tol=1e-3):
        return None
    names = q[0].input[0], k[0].input[0], v[0].input[0]
    to_prompt = {*names[1:]} <= graph.inputs.keys()
    if not _are_projections(graph, *(names[:1] if to_prompt else names)):
        return None
    cut = SpatialAttentionCut(*names, joined[-1].output[0], heads, to_prompt)
    return _island(graph, cut, *q, *k, *v, scaling, turning, scores, softmax, weighted, *joined)


def _by_head(graph: UNetGraph, name: str) -> tuple[NodeProto, NodeProto] | None:
    """Match [rows, positions, channels] → [rows, heads, positions, channels of a head]."""
    transpose = graph.made_by(name, "Transpose")
    reshape = None if transpose is None else graph.made_by(transpose.input[0], "Reshape")
    if transpose is None or reshape is None or list(attribute(transpose, "perm")) != [0, 2, 1, 3]:
        return None
    before, after = graph.find_row_shape(reshape.input[0]), graph.find_row_shape(reshape.output[0])
    if before is None or after is None or len(before) != 2 or len(after) != 3 or before[0] != after[0]:
        return None
    return reshape, transpose


def _joined(graph: UNetGraph, name: str) -> tuple[NodeProto, NodeProto] | None:
    """Match [rows, heads, positions, channels of a head] → [rows, positions, channels]."""
    transpose = graph.only_reader(name, "Transpose")
    reshape = None if transpose is None else graph.only_reader(transpose.output[0], "Reshape")
    if transpose is None or reshape is None or list(attribute(transpose, "perm")) != [0, 2, 1, 3]:
        return None
    before, after = graph.find_row_shape(transpose.output[0]), graph.find_row_shape(reshape.output[0])
    if before is None or after is None or after != (before[0], before[1] * before[2]):
        return None
    return transpose, reshape


def _heads(graph: UNetGraph, name: str) -> tuple[int, int]:
    """Return heads and channels of a head of [rows, heads, positions, channels of a head]."""
    heads, _positions, head_channels = graph.row_shape(name)
    return heads, head_channels


def _are_projections(graph: UNetGraph, *names: str) -> bool:
    """Whether values are products of the same with weights."""
    first = graph.producer(names[0])
    return first is not None and all(is_projection(graph, name, first.input[0]) for name in names)


# group norm


def _find_group_norm(graph: UNetGraph, norm: NodeProto) -> Island | None:
    """Match a group norm with weights of its own, a row's bias added before it, and SiLU behind it."""
    x, scale, bias = norm.input
    if not {scale, bias} <= graph.initialisers.keys():
        return None
    nodes, out, row_bias = [norm], norm.output[0], ""
    silu = _silu_of(graph, out)
    if silu is not None:
        nodes += silu
        out = silu[-1].output[0]
    addition = graph.made_by(x, "Add")
    if addition is not None:
        for summand, added in (addition.input, addition.input[::-1]):
            name = _row_bias_of(graph, added, norm)
            if name:
                nodes.append(addition)
                x, row_bias = summand, name
                break
    groups, epsilon = int(attribute(norm, "num_groups")), float(attribute(norm, "epsilon"))
    return _island(graph, GroupNormCut(x, out, scale, bias, row_bias, groups, epsilon, silu is not None), *nodes)


def _silu_of(graph: UNetGraph, name: str) -> list[NodeProto] | None:
    """Match x · sigmoid(x), if nobody else reads x."""
    readers = {graph.nodes[index].op_type: graph.nodes[index] for index in graph.readers[name]}
    if len(graph.readers[name]) != 2 or readers.keys() != {"Sigmoid", "Mul"}:
        return None
    sigmoid, product = readers["Sigmoid"], readers["Mul"]
    if {*product.input} != {name, sigmoid.output[0]} or len(graph.readers[sigmoid.output[0]]) != 1:
        return None
    return [sigmoid, product]


def _row_bias_of(graph: UNetGraph, name: str, norm: NodeProto) -> str:
    """Return the input, [rows, channels], that a value is a view of, as [rows, channels, 1, 1]; else nothing."""
    if (graph.find_row_shape(name) or ())[1:] != (1, 1):
        return ""
    node = graph.producer(name)
    while node is not None and node.op_type in ("Unsqueeze", "Reshape"):
        name = node.input[0]
        node = graph.producer(name)
    shape = graph.find_row_shape(name)
    channels = (graph.find_row_shape(norm.output[0]) or ())[:1]
    return name if name in graph.inputs and shape is not None and shape == channels else ""


# GEGLU


def _find_gated_gelu(graph: UNetGraph, gelu: NodeProto) -> Island | None:
    """Match split(x)[0] · gelu(split(x)[1]), halves along the channels."""
    split, product = graph.made_by(gelu.input[0], "Split"), graph.only_reader(gelu.output[0], "Mul")
    if split is None or product is None or attribute(gelu, "approximate") not in (None, b"none"):
        return None
    x, halves = split.input[0], list(split.output)
    shape, half = graph.find_row_shape(x), graph.find_row_shape(gelu.output[0])
    if len(halves) != 2 or gelu.input[0] != halves[1] or {*product.input} != {halves[0], gelu.output[0]}:
        return None
    if shape is None or half is None or shape != (*half[:-1], 2 * half[-1]) or len(graph.readers[halves[0]]) != 1:
        return None
    return _island(graph, GatedGeluCut(x, product.output[0]), split, gelu, product)
