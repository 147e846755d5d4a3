"""Cuts a bundle's UNet at its temporal attentions into the segments that plans are built from.

Weights stay where they are: every segment refers to the bundle's data file. A node belongs to the earliest segment that
has its inputs. What costs nothing (constants, views) is repeated in every segment that reads it, so it never crosses.
The projections to q, k and v become one product, whose result they are packed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP
from live2diff_trt.bundle.spec import FloatName, KvCacheSpec, StreamSpec
from live2diff_trt.engine.split import PACKED_PARTS, AttentionCut, CrossingTensor, Segment, UNetSplit

_VIEWS = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_OUTPUT = "model_output"
_ROWS = "rows"
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
    """Cut a bundle's ``unet.onnx`` at its temporal attentions.

    Args:
        path: the graph. Its weights are not read.
        spec: the bundle's stream.
        rows: R, the fixed number of rows of every segment.

    Raises:
        BundleError: if the file is no ONNX graph, or its attentions are not the spec's, one after the other.
    """
    graph = _Graph(path, _read_model(path))
    attentions = _chain_attentions(graph, spec)
    pieces = _cut_pieces(graph, attentions)
    _check_border(graph, spec, pieces)
    split = _describe(graph, attentions, pieces)
    models = tuple(_make_model(graph, split, index, piece, rows) for index, piece in enumerate(pieces))
    return CutUNet(split, models)


def load_position_tables(path: Path, split: UNetSplit) -> dict[str, NDArray[Any]]:
    """Read the attentions' position tables from the data file beside a graph: initialiser → [window, channels].

    Raises:
        BundleError: if the graph or its data file can't be read, or lacks a table.
    """
    initialisers = {tensor.name: tensor for tensor in _read_model(path).graph.initializer}
    tables: dict[str, NDArray[Any]] = {}
    for name in (name for attention in split.attentions for name in attention.tables):
        if name not in initialisers:
            raise _refusal(path, f"holds no table {name}")
        try:
            if initialisers[name].data_location == onnx.TensorProto.EXTERNAL:
                load_external_data_for_tensor(initialisers[name], str(path.parent))
            tables[name] = numpy_helper.to_array(initialisers[name])
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise _refusal(path, f"refers to data for {name} that can't be read ({error})") from error
    return tables


def _read_model(path: Path) -> ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise _refusal(path, f"is not a readable ONNX graph ({error})") from error


def _refusal(path: Path, problem: str) -> BundleError:
    return BundleError(f"{path} {problem}", "Export the bundle again with `live2diff-trt export`")


class _Graph:
    """Indices over a model: who makes a value, what type it has, and behind how many attentions it comes.

    Attributes:
        level: value → how many attentions must have run before it; a constant has none.
    """

    def __init__(self, path: Path, model: ModelProto) -> None:
        graph = model.graph
        self.path = path
        self.model = model
        self.nodes: Sequence[NodeProto] = graph.node
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name: value for value in graph.input}
        self.types = {value.name: value for value in [*graph.value_info, *graph.input, *graph.output]}
        self.producers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.readers = Counter(name for node in self.nodes for name in node.input)
        self.level: dict[str, int] = dict.fromkeys([*self.initialisers, *self.inputs], 0)
        self._constants = set(self.initialisers)
        self._repeated: set[int] = set()
        for index, node in enumerate(self.nodes):
            self._rank(index, node)

    def producer(self, name: str) -> NodeProto:
        """Return the node that makes a value."""
        return self.nodes[self.producers[name]]

    def is_constant(self, name: str) -> bool:
        """Whether a value follows from weights alone."""
        return name in self._constants

    def repeats(self, index: int) -> bool:
        """Whether a node is made again wherever its result is read."""
        return index in self._repeated

    def _rank(self, index: int, node: NodeProto) -> None:
        operands = [name for name in node.input if name]
        unknown = [name for name in operands if name not in self.level]
        if unknown:
            raise _refusal(self.path, f"reads {unknown[0]} in {node.name} before it is made")
        if node.domain and not is_attention(node):
            raise _refusal(self.path, f"has a node {node.domain}::{node.op_type}, which is unknown here")
        level = max((self.level[name] for name in operands), default=0) + is_attention(node)
        self.level.update(dict.fromkeys(node.output, level))
        constant = self._constants.issuperset(operands)
        if constant:
            self._constants.update(node.output)
        if constant or node.op_type in _VIEWS:
            self._repeated.add(index)


def is_attention(node: NodeProto) -> bool:
    """Whether a node is a temporal attention."""
    return (node.domain, node.op_type) == (TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP)


def _chain_attentions(graph: _Graph, spec: StreamSpec) -> list[AttentionCut]:
    """Return the attentions in the order in which they run: the spec's, each behind the one before."""
    nodes = sorted((node for node in graph.nodes if is_attention(node)), key=lambda node: graph.level[node.output[0]])
    if [graph.level[node.output[0]] for node in nodes] != list(range(1, len(spec.kv_caches) + 1)):
        raise _refusal(graph.path, f"is not a chain of {len(spec.kv_caches)} temporal attentions")
    for node, cache in zip(nodes, spec.kv_caches, strict=True):
        _check_attention(graph, node, cache, spec)
    return [_describe_attention(node, cache.name) for node, cache in zip(nodes, spec.kv_caches, strict=True)]


def _describe_attention(node: NodeProto, place: str) -> AttentionCut:
    q, k, v, _past_k, _past_v, pe_q, pe_k, pe_v = node.input[:8]
    return AttentionCut(place, q, k, v, node.output[0], (pe_q, pe_k, pe_v))


def _check_attention(graph: _Graph, node: NodeProto, cache: KvCacheSpec, spec: StreamSpec) -> None:
    """Refuse an attention that is not the cache's, or whose tensors are not what the signature says."""
    sides = [f"{side}.{cache.name}" for side in ("new_k", "new_v", "past_k", "past_v")]
    window = ["position", "past_position", "past_bias"]
    if [*node.input[1:5], *node.input[8:]] != [*sides, *window]:
        raise _refusal(graph.path, f"has {node.name} where the attention of {cache.name} belongs")
    shapes = {name: _row_shape(graph, name) for name in (*node.input[:3], *node.output)}
    wrong = [name for name, shape in shapes.items() if shape != (cache.positions, cache.channels)]
    wrong += [name for name in shapes if _dtype(graph, name) != spec.dtype]
    wrong += [name for name in node.input[:3] if not _is_projection(graph, name, node.input[0])]
    wrong += [
        name
        for name in node.input[5:8]
        if name not in graph.initialisers or tuple(graph.initialisers[name].dims) != (spec.window, cache.channels)
    ]
    if wrong:
        raise _refusal(graph.path, f"gives the attention of {cache.name} a {wrong[0]} that is not as the manifest says")
    heads = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == "heads"]
    if heads != [spec.heads]:
        raise _refusal(graph.path, f"has {heads} heads in the attention of {cache.name}, its manifest {spec.heads}")


def _is_projection(graph: _Graph, name: str, q: str) -> bool:
    """Whether a value is a product with weights of what q is made of, and only the attention reads it."""
    if not {name, q} <= graph.producers.keys() or graph.readers[name] != 1:
        return False
    product, query = graph.producer(name), graph.producer(q)
    return product.op_type == "MatMul" and product.input[0] == query.input[0] and graph.is_constant(product.input[1])


@dataclass(frozen=True, eq=False)
class _Piece:
    """What a segment is made of: indices of nodes; names of the values it reads, weights left out, and writes."""

    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def _cut_pieces(graph: _Graph, attentions: Sequence[AttentionCut]) -> list[_Piece]:
    """Return the segments' pieces, in order."""
    if graph.level.get(_OUTPUT) != len(attentions):
        raise _refusal(graph.path, f"does not make {_OUTPUT} behind its last temporal attention")
    wanted: list[list[str]] = [[] for _ in range(len(attentions) + 1)]
    for name in [name for cut in attentions for name in (cut.q, cut.k, cut.v)] + [_OUTPUT]:
        wanted[graph.level[name]].append(name)
    pieces: list[_Piece] = []
    made_by_attention = {cut.out for cut in attentions}
    # From the last to the first: what a segment reads from before it, an earlier one must write.
    for level in reversed(range(len(wanted))):
        writes = tuple(dict.fromkeys(wanted[level]))
        nodes, reads = _trace_back(graph, level, writes)
        for name in reads:
            if name in graph.producers and name not in made_by_attention:
                wanted[graph.level[name]].append(name)
        pieces.append(_Piece(nodes, reads, writes))
    return pieces[::-1]


def _trace_back(graph: _Graph, level: int, writes: Iterable[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the nodes that make ``writes`` at a level, and what they read from outside it, weights left out."""
    nodes: set[int] = set()
    reads: set[str] = set()
    pending = list(writes)
    while pending:
        name = pending.pop()
        index = graph.producers.get(name)
        if (
            index is None
            or is_attention(graph.nodes[index])
            or (graph.level[name] < level and not graph.repeats(index))
        ):
            reads.add(name)
        elif index not in nodes:
            nodes.add(index)
            pending.extend(name for name in graph.nodes[index].input if name)
    order = {name: place for place, name in enumerate([*graph.inputs, *graph.producers])}
    return tuple(sorted(nodes)), tuple(sorted(reads - graph.initialisers.keys(), key=order.__getitem__))


def _check_border(graph: _Graph, spec: StreamSpec, pieces: Iterable[_Piece]) -> None:
    """Refuse a segment that looks at the past. The warm-up graph's inputs are those that have nothing to do with it."""
    known = {tensor.name for tensor in signature.unet_warmup(spec).inputs}
    unknown = [name for piece in pieces for name in piece.reads if name in graph.inputs and name not in known]
    if unknown:
        raise _refusal(graph.path, f"uses {unknown[0]} outside temporal attention")


def _describe(graph: _Graph, attentions: Sequence[AttentionCut], pieces: Sequence[_Piece]) -> UNetSplit:
    first = {name: 2 * index for index, piece in enumerate(pieces) for name in piece.writes}
    first |= {cut.out: 2 * index + 1 for index, cut in enumerate(attentions)}
    last = dict(first)
    for index, cut in enumerate(attentions):
        last |= {name: max(last[name], 2 * index + 1) for name in (cut.q, cut.k, cut.v)}
    for index, piece in enumerate(pieces):
        last |= {name: max(last[name], 2 * index) for name in piece.reads if name in last}
    packed = _packed_names(attentions)
    segments = tuple(
        Segment(
            f"segment_{index:02d}", piece.reads, tuple(dict.fromkeys(packed.get(name, name) for name in piece.writes))
        )
        for index, piece in enumerate(pieces)
    )
    written = sorted(first, key=lambda name: (first[name], graph.producers[name]))
    tensors = [_describe_tensor(graph, name, first[name], last[name]) for name in written]
    return UNetSplit(segments, tuple(attentions), tuple(_pack_tensors(tensors, attentions)))


def _packed_names(attentions: Iterable[AttentionCut]) -> dict[str, str]:
    """Return for each q, k and v what it is packed in."""
    return {name: f"qkv.{cut.place}" for cut in attentions for name in (cut.q, cut.k, cut.v)}


def _pack_tensors(tensors: Iterable[CrossingTensor], attentions: Iterable[AttentionCut]) -> Iterator[CrossingTensor]:
    """Mark q, k and v as parts, and put what they are packed in before them."""
    attentions = list(attentions)
    packed = _packed_names(attentions)
    parts = {name: part for cut in attentions for part, name in enumerate((cut.q, cut.k, cut.v))}
    for tensor in tensors:
        if tensor.name not in packed:
            yield tensor
            continue
        whole, part = packed[tensor.name], parts[tensor.name]
        if part == 0:
            yield replace(tensor, name=whole, row_shape=(PACKED_PARTS, *tensor.row_shape))
        yield replace(tensor, packed_in=whole, part=part)


def _describe_tensor(graph: _Graph, name: str, first: int, last: int) -> CrossingTensor:
    shape, dtype = _row_shape(graph, name), _dtype(graph, name)
    if len(shape) != 3 or name == _OUTPUT:
        return CrossingTensor(name, shape, dtype, first, last)
    channels, height, width = shape
    if channels % _CHANNEL_MULTIPLE:
        raise _refusal(
            graph.path, f"has {name} with {channels} channels, not a multiple of {_CHANNEL_MULTIPLE}, across a cut"
        )
    return CrossingTensor(name, (height, width, channels), dtype, first, last, channels_last=True)


def _row_shape(graph: _Graph, name: str) -> tuple[int, ...]:
    value = graph.types.get(name)
    dimensions = value.type.tensor_type.shape.dim if value is not None else []
    shape = tuple(dimension.dim_value for dimension in dimensions[1:])
    if not dimensions or dimensions[0].dim_param != _ROWS or 0 in shape:
        raise _refusal(graph.path, f"does not say the shape of {name}, which must be [{_ROWS}, …]")
    return shape


def _dtype(graph: _Graph, name: str) -> FloatName:
    dtype = str(helper.tensor_dtype_to_np_dtype(graph.types[name].type.tensor_type.elem_type))
    if dtype == "float16":
        return "float16"
    if dtype == "float32":
        return "float32"
    raise _refusal(graph.path, f"has {name} as {dtype}, not as float16 or float32")


def _make_model(graph: _Graph, split: UNetSplit, index: int, piece: _Piece, rows: int) -> ModelProto:
    """Return a segment as a graph of its own, with ``rows`` rows."""
    segment, cuts = split.segments[index], split.attentions[index : index + 1]
    projections = {name for cut in cuts for name in (cut.q, cut.k, cut.v)}
    nodes = [graph.nodes[place] for place in piece.nodes if projections.isdisjoint(graph.nodes[place].output)]
    nodes += [node for cut in cuts for node in _project_at_once(graph, cut)]
    operands = {name for node in nodes for name in node.input}
    types = graph.types | {value.name: value for value in (_packed_value(graph, cut) for cut in cuts)}
    inner = [name for node in nodes for name in node.output if name not in segment.outputs and name in types]
    model = ModelProto(ir_version=graph.model.ir_version)
    model.opset_import.extend(opset for opset in graph.model.opset_import if not opset.domain)
    model.graph.name = segment.name
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for name, tensor in graph.initialisers.items() if name in operands)
    model.graph.input.extend(_fix_rows(types[name], rows) for name in segment.inputs)
    model.graph.output.extend(_fix_rows(types[name], rows) for name in segment.outputs)
    model.graph.value_info.extend(_fix_rows(types[name], rows) for name in inner)
    return model


def _project_at_once(graph: _Graph, cut: AttentionCut) -> list[NodeProto]:
    """Return nodes that make q, k and v in one product: [rows, positions, channels] → [3, rows, positions, channels].

    The builder folds what happens to the weights.
    """
    packed = _packed_names([cut])[cut.q]
    axes, weights = f"{packed}/axes", f"{packed}/weights"
    products = [graph.producer(name) for name in (cut.q, cut.k, cut.v)]
    matrices = [f"{packed}/weights_{side}" for side in "qkv"]
    return [
        helper.make_node("Constant", [], [axes], name=axes, value_ints=[0, 1]),
        *(
            helper.make_node("Unsqueeze", [product.input[1], axes], [matrix], name=matrix)
            for product, matrix in zip(products, matrices, strict=True)
        ),
        helper.make_node("Concat", matrices, [weights], name=weights, axis=0),
        helper.make_node("MatMul", [products[0].input[0], weights], [packed], name=packed),
    ]


def _packed_value(graph: _Graph, cut: AttentionCut) -> ValueInfoProto:
    element = graph.types[cut.q].type.tensor_type.elem_type
    shape: list[int | str] = [PACKED_PARTS, _ROWS, *_row_shape(graph, cut.q)]
    return helper.make_tensor_value_info(_packed_names([cut])[cut.q], element, shape)


def _fix_rows(value: ValueInfoProto, rows: int) -> ValueInfoProto:
    """Return a copy of a value's type with ``rows`` rows."""
    fixed = ValueInfoProto()
    fixed.CopyFrom(value)
    for dimension in fixed.type.tensor_type.shape.dim:
        if dimension.dim_param == _ROWS:
            dimension.dim_value = rows
    return fixed
