"""Cuts a bundle's UNet where kernels of ours compute, into the segments that plans are built from.

Weights stay where they are: every segment refers to the bundle's data file. A node belongs to the earliest segment that
has its inputs. What costs nothing (constants, views) is repeated in every segment that reads it, so it never crosses. A
picture that is read as tokens, or the other way round, crosses as what it was made as: the memory is the same. The
projections to q, k and v become one product, whose result they are packed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.islands import Island, find_islands
from live2diff_trt.engine.split import (
    PACKED_PARTS,
    AttentionCut,
    CrossingTensor,
    Cut,
    Segment,
    TemporalAttentionCut,
    UNetSplit,
    ViewCut,
    packed_name,
)
from live2diff_trt.engine.unet_graph import ROWS, UNetGraph, refusal

_VIEWS = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_OUTPUT = "model_output"
_CHANNEL_MULTIPLE = 8
"""TensorRT binds pictures in half precision as channels last in groups of so many: dense only if none is broken."""


@dataclass(frozen=True, eq=False)
class CutUNet:
    """A UNet in its split form.

    Attributes:
        split: what is where.
        models: one graph per segment, in order, without weights of their own: they refer to the data file that lies
            beside the UNet's graph.
    """

    split: UNetSplit
    models: tuple[ModelProto, ...]


def cut_unet(path: Path, spec: StreamSpec, rows: int) -> CutUNet:
    """Cut a bundle's ``unet.onnx`` where kernels compute.

    Args:
        path: the graph. Its weights are not read.
        spec: the bundle's stream.
        rows: R, the fixed number of rows of every segment.

    Raises:
        BundleError: if the file is no ONNX graph, or its attentions are not the spec's, one after the other.
    """
    graph = UNetGraph(path)
    islands = find_islands(graph, spec)
    levels = _Levels(graph, [*islands, *_find_views(graph, _Levels(graph, islands))])
    pieces = _cut_pieces(graph, levels)
    _check_border(graph, spec, pieces)
    split = _describe(graph, levels.cuts, pieces)
    models = tuple(_make_model(graph, split, index, piece, rows) for index, piece in enumerate(pieces))
    return CutUNet(split, models)


def load_constants(path: Path, split: UNetSplit) -> dict[str, NDArray[Any]]:
    """Read what kernels take of the weights from the data file beside a graph: initialiser → its values.

    Raises:
        BundleError: if the graph or its data file can't be read, or lacks an initialiser.
    """
    initialisers = UNetGraph(path).initialisers
    constants: dict[str, NDArray[Any]] = {}
    for name in split.constants:
        if name not in initialisers:
            raise refusal(path, f"holds no {name}")
        try:
            if initialisers[name].data_location == onnx.TensorProto.EXTERNAL:
                load_external_data_for_tensor(initialisers[name], str(path.parent))
            constants[name] = numpy_helper.to_array(initialisers[name])
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise refusal(path, f"refers to data for {name} that can't be read ({error})") from error
    return constants


class _Levels:
    """How many cuts must have run before a value can be had.

    Attributes:
        of: value → its level; a constant has 0. Results inside an island have none.
        cuts: in the order in which they run, each behind the one before.
    """

    def __init__(self, graph: UNetGraph, islands: Sequence[Island]) -> None:
        self._graph = graph
        self._ends = {graph.producers[island.cut.out]: island for island in islands}
        self._inside = {index for island in islands for index in island.nodes}
        self._results = {island.cut.out for island in islands if not isinstance(island.cut, ViewCut)}
        self._repeated: set[int] = set()
        self.of: dict[str, int] = dict.fromkeys([*graph.initialisers, *graph.inputs], 0)
        for index, node in enumerate(graph.nodes):
            self._rank(index, node)
        self.cuts = self._order(islands)

    def is_result(self, name: str) -> bool:
        """Whether a kernel makes a value."""
        return name in self._results

    def is_made_before(self, name: str, level: int) -> bool:
        """Whether a segment at ``level`` finds a value made, as something that crosses."""
        index = self._graph.producers.get(name)
        if index is None or self.is_result(name):
            return True
        return self.of[name] < level and index not in self._repeated

    def is_in_segment(self, index: int) -> bool:
        """Whether a node is a segment's to compute: no kernel does, and it is more than a view."""
        return index not in self._inside and index not in self._repeated

    def _rank(self, index: int, node: NodeProto) -> None:
        island = self._ends.get(index)
        if island is not None:
            self.of[island.cut.out] = 1 + max(self.of[name] for name in island.reads)
            return
        if index in self._inside:
            return
        if node.domain:
            raise self._graph.refusal(f"has a node {node.domain}::{node.op_type}, which is unknown here")
        operands = [name for name in node.input if name]
        self.of.update(dict.fromkeys(node.output, max((self.of[name] for name in operands), default=0)))
        if node.op_type in _VIEWS or self._graph.constants.issuperset(operands):
            self._repeated.add(index)

    def _order(self, islands: Sequence[Island]) -> tuple[Cut, ...]:
        cuts = sorted((island.cut for island in islands), key=lambda cut: self.of[cut.out])
        if [self.of[cut.out] for cut in cuts] != list(range(1, len(cuts) + 1)):
            attentions = sum(isinstance(cut, TemporalAttentionCut) for cut in cuts)
            raise self._graph.refusal(f"is not a chain of {attentions} temporal attentions and what lies between them")
        return tuple(cuts)


def _find_views(graph: UNetGraph, levels: _Levels) -> list[Island]:
    """Return the views of what a segment makes as tokens and would read as a picture itself, or the other way round."""
    found: dict[str, Island] = {}
    for index, node in enumerate(graph.nodes):
        if not levels.is_in_segment(index):
            continue
        level = levels.of[node.output[0]]
        for name in node.input:
            root = graph.memory_root(name) if name else name
            if root != name and levels.of[root] == level and not levels.is_result(root):
                found[name] = Island(ViewCut(root, name), frozenset({graph.producers[name]}))
    return list(found.values())


@dataclass(frozen=True, eq=False)
class _Piece:
    """What a segment is made of: indices of nodes; names of the values it reads, weights left out, and writes."""

    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def _cut_pieces(graph: UNetGraph, levels: _Levels) -> list[_Piece]:
    """Return the segments' pieces, in order."""
    if levels.of.get(_OUTPUT) != len(levels.cuts):
        raise graph.refusal(f"does not make {_OUTPUT} behind its last cut")
    wanted: list[list[str]] = [[] for _ in range(len(levels.cuts) + 1)]
    for name in [name for cut in levels.cuts for name in _made_for(graph, cut)] + [_OUTPUT]:
        if not levels.is_result(name):
            wanted[levels.of[name]].append(name)
    pieces: list[_Piece] = []
    # From the last to the first: what a segment reads from before it, an earlier one must write.
    for level in reversed(range(len(wanted))):
        writes = tuple(dict.fromkeys(wanted[level]))
        nodes, reads = _trace_back(graph, levels, level, writes)
        for root in map(graph.memory_root, reads):
            if root in graph.producers and not levels.is_result(root):
                wanted[levels.of[root]].append(root)
        pieces.append(_Piece(nodes, reads, writes))
    return pieces[::-1]


def _made_for(graph: UNetGraph, cut: Cut) -> tuple[str, ...]:
    """Return what segments or kernels before a cut must have made for it, as it lies in memory."""
    read = (cut.q, cut.k, cut.v) if isinstance(cut, AttentionCut) else (cut.x,)
    return tuple(root for root in map(graph.memory_root, read) if root in graph.producers)


def _trace_back(
    graph: UNetGraph, levels: _Levels, level: int, writes: Iterable[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the nodes that make ``writes`` at a level, and what they read from outside it, weights left out."""
    nodes: set[int] = set()
    reads: set[str] = set()
    pending = list(writes)
    while pending:
        name = pending.pop()
        if levels.is_made_before(graph.memory_root(name), level):
            reads.add(name)
            continue
        index = graph.producers[name]
        if index not in nodes:
            nodes.add(index)
            pending.extend(name for name in graph.nodes[index].input if name)
    order = {name: place for place, name in enumerate([*graph.inputs, *graph.producers])}
    return tuple(sorted(nodes)), tuple(sorted(reads - graph.initialisers.keys(), key=order.__getitem__))


def _check_border(graph: UNetGraph, spec: StreamSpec, pieces: Iterable[_Piece]) -> None:
    """Refuse a segment that looks at the past. The warm-up graph's inputs are those that have nothing to do with it."""
    known = {tensor.name for tensor in signature.unet_warmup(spec).inputs}
    unknown = [name for piece in pieces for name in piece.reads if name in graph.inputs and name not in known]
    if unknown:
        raise graph.refusal(f"uses {unknown[0]} outside temporal attention")


def _describe(graph: UNetGraph, cuts: Sequence[Cut], pieces: Sequence[_Piece]) -> UNetSplit:
    cuts = [_by_memory(graph, cut) for cut in cuts]
    first = {name: 2 * index for index, piece in enumerate(pieces) for name in piece.writes}
    first |= {cut.out: 2 * index + 1 for index, cut in enumerate(cuts) if not isinstance(cut, ViewCut)}
    last = dict(first)
    views: dict[str, str] = {}
    for index, cut in enumerate(cuts):
        for name in _made_for(graph, cut):
            last[name] = max(last[name], 2 * index + 1)
    for index, piece in enumerate(pieces):
        for name in piece.reads:
            root = graph.memory_root(name)
            if root in last:
                last[root] = max(last[root], 2 * index)
            if root != name:
                views[name] = root
    packed = _packed_names(cuts)
    segments = tuple(
        Segment(
            f"segment_{index:03d}", piece.reads, tuple(dict.fromkeys(packed.get(name, name) for name in piece.writes))
        )
        for index, piece in enumerate(pieces)
    )
    written = sorted(first, key=lambda name: (first[name], graph.producers[name]))
    tensors = {name: _describe_tensor(graph, name, first[name], last[name]) for name in written}
    for name, root in views.items():
        tensors[name] = replace(_describe_tensor(graph, name, first[root], last[root]), view_of=root)
    in_order = sorted(tensors.values(), key=lambda tensor: tensor.first)
    return UNetSplit(segments, tuple(cuts), tuple(_pack_tensors(in_order, cuts)))


def _by_memory(graph: UNetGraph, cut: Cut) -> Cut:
    """Return a cut that names what it reads by whose memory it is."""
    if isinstance(cut, AttentionCut):
        return replace(cut, q=graph.memory_root(cut.q), k=graph.memory_root(cut.k), v=graph.memory_root(cut.v))
    return replace(cut, x=graph.memory_root(cut.x))


def _packed_names(cuts: Iterable[Cut]) -> dict[str, str]:
    """Return for each q, k and v that are one product what they are packed in."""
    return {name: packed for cut, packed in _packed_attentions(cuts) for name in (cut.q, cut.k, cut.v)}


def _packed_attentions(cuts: Iterable[Cut]) -> Iterator[tuple[AttentionCut, str]]:
    """Yield the attentions whose q, k and v are one product, and the name of that."""
    for cut in cuts:
        if isinstance(cut, AttentionCut) and packed_name(cut):
            yield cut, packed_name(cut)


def _pack_tensors(tensors: Iterable[CrossingTensor], cuts: Sequence[Cut]) -> Iterator[CrossingTensor]:
    """Mark q, k and v as parts, and put what they are packed in before them."""
    packed = _packed_names(cuts)
    parts = {name: part for cut, _ in _packed_attentions(cuts) for part, name in enumerate((cut.q, cut.k, cut.v))}
    introduced: set[str] = set()
    for tensor in tensors:
        if tensor.name not in packed:
            yield tensor
            continue
        whole = packed[tensor.name]
        if whole not in introduced:
            introduced.add(whole)
            yield replace(tensor, name=whole, row_shape=(PACKED_PARTS, *tensor.row_shape))
        yield replace(tensor, packed_in=whole, part=parts[tensor.name])


def _describe_tensor(graph: UNetGraph, name: str, first: int, last: int) -> CrossingTensor:
    shape, dtype = graph.row_shape(name), graph.dtype(name)
    if len(shape) != 3 or name == _OUTPUT:
        return CrossingTensor(name, shape, dtype, first, last)
    channels, height, width = shape
    if channels % _CHANNEL_MULTIPLE:
        raise graph.refusal(f"has {name} with {channels} channels, not a multiple of {_CHANNEL_MULTIPLE}, across a cut")
    return CrossingTensor(name, (height, width, channels), dtype, first, last, channels_last=True)


def _make_model(graph: UNetGraph, split: UNetSplit, index: int, piece: _Piece, rows: int) -> ModelProto:
    """Return a segment as a graph of its own, with ``rows`` rows."""
    segment = split.segments[index]
    packed = [(cut, name) for cut, name in _packed_attentions(split.cuts) if name in segment.outputs]
    projections = _packed_names(cut for cut, _ in packed)
    nodes = [graph.nodes[place] for place in piece.nodes if projections.keys().isdisjoint(graph.nodes[place].output)]
    flat = _is_free_of_views(graph, nodes)
    nodes += [node for cut, name in packed for node in _project_at_once(graph, cut, name, flat)]
    operands = {name for node in nodes for name in node.input}
    types = graph.types | {name: _packed_value(graph, cut, name) for cut, name in packed}
    inner = [name for node in nodes for name in node.output if name not in segment.outputs and name in types]
    model = ModelProto(ir_version=graph.model.ir_version)
    model.opset_import.extend(opset for opset in graph.model.opset_import if not opset.domain)
    model.graph.name = segment.name
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for name, tensor in graph.initialisers.items() if name in operands)
    fix = _flatten_rows if flat else _fix_rows
    model.graph.input.extend(fix(types[name], rows) for name in segment.inputs)
    model.graph.output.extend(fix(types[name], rows) for name in segment.outputs)
    model.graph.value_info.extend(fix(types[name], rows) for name in inner)
    return model


def _is_free_of_views(graph: UNetGraph, nodes: Iterable[NodeProto]) -> bool:
    """Whether nothing but weights is seen in another shape, so that it does not matter what rows tokens are in."""
    views = (node for node in nodes if node.op_type in _VIEWS)
    return all(node.input[0] in graph.constants for node in views)


def _project_at_once(graph: UNetGraph, cut: AttentionCut, packed: str, flat: bool) -> list[NodeProto]:
    """Return nodes that make q, k and v in one product: [rows, positions, channels] → [3, rows, positions, channels].

    Flat, rows and positions are one axis of both. The builder folds what happens to the weights.
    """
    axes, weights = f"{packed}/axes", f"{packed}/weights"
    products = [graph.nodes[graph.producers[name]] for name in (cut.q, cut.k, cut.v)]
    matrices = [f"{packed}/weights_{side}" for side in "qkv"]
    return [
        helper.make_node("Constant", [], [axes], name=axes, value_ints=[0] if flat else [0, 1]),
        *(
            helper.make_node("Unsqueeze", [product.input[1], axes], [matrix], name=matrix)
            for product, matrix in zip(products, matrices, strict=True)
        ),
        helper.make_node("Concat", matrices, [weights], name=weights, axis=0),
        helper.make_node("MatMul", [products[0].input[0], weights], [packed], name=packed),
    ]


def _packed_value(graph: UNetGraph, cut: AttentionCut, packed: str) -> ValueInfoProto:
    element = graph.types[cut.q].type.tensor_type.elem_type
    return helper.make_tensor_value_info(packed, element, [PACKED_PARTS, ROWS, *graph.row_shape(cut.q)])


def _flatten_rows(value: ValueInfoProto, rows: int) -> ValueInfoProto:
    """Return a copy of a value's type with the positions of ``rows`` rows as one axis, if it is tokens.

    Products are matrices then. With three axes TensorRT-RTX adds biases and residuals in kernels of their own.
    """
    fixed = _fix_rows(value, rows)
    axes = [dimension.dim_param for dimension in value.type.tensor_type.shape.dim]
    if axes[-3:-2] != [ROWS]:
        return fixed
    *before, _rows, positions, channels = (dimension.dim_value for dimension in fixed.type.tensor_type.shape.dim)
    shape = [*before, rows * positions, channels]
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape)


def _fix_rows(value: ValueInfoProto, rows: int) -> ValueInfoProto:
    """Return a copy of a value's type with ``rows`` rows."""
    fixed = ValueInfoProto()
    fixed.CopyFrom(value)
    for dimension in fixed.type.tensor_type.shape.dim:
        if dimension.dim_param == ROWS:
            dimension.dim_value = rows
    return fixed
