"""One module → one ONNX graph with the names, shapes and dtypes of its signature."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir import passes
from onnx_ir.convenience import extract
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    IdentityEliminationPass,
    RemoveUnusedNodesPass,
)
from onnxscript import opset21 as op
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from live2diff_trt.bundle.signature import Dimension, GraphSignature, TensorSpec
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.temporal_op import DOMAIN_VERSION, OPSET

logger = logging.getLogger(__name__)

# What a symbolic dimension is while tracing, and its bound. 63 rows: diffusers' upsampler takes another path from 64.
_TRACED = {"rows": (2, 63), "frames": (2, 63), "tokens": (11, 4096)}


def export_graph(module: nn.Module, signature: GraphSignature) -> onnx_ir.Model:
    """Trace ``module``, whose forward takes one tuple of tensors and returns one, both in the signature's order.

    Weights keep the names they have in the module and are not folded, so that an engine can find and refit them.

    Raises:
        ExportError: if the graph's outputs are not those of the signature.
    """
    logger.info("tracing %s", signature.name)
    with _no_garbage_collection():
        model = _trace(module, signature)
        _name_border(model, signature)
        _simplify(model)
    weights = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    _keep_as_initialisers(model, weights)
    return model


def cut_out(model: onnx_ir.Model, signature: GraphSignature) -> onnx_ir.Model:
    """Return the part of a graph between a signature's inputs and outputs, as a model of its own, weights shared."""
    names = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]
    graph = extract(model.graph, *names)
    graph.name = signature.name
    _order_initialisers(graph, model.graph)
    return onnx_ir.Model(graph, ir_version=model.ir_version, producer_name=model.producer_name)


def _order_initialisers(part: onnx_ir.Graph, whole: onnx_ir.Graph) -> None:
    """Give the weights of a part the order that they have in the whole graph, in place.

    ``extract`` collects them in a set, whose order depends on addresses: two exports would differ.
    """
    for name in whole.initializers:
        if name in part.initializers:
            part.initializers[name] = part.initializers.pop(name)


def _trace(module: nn.Module, signature: GraphSignature) -> onnx_ir.Model:
    # Examples have shapes and no memory: those of a full-size network's caches would not fit.
    with FakeTensorMode(allow_non_fake_inputs=True):
        examples = tuple(_example(spec) for spec in signature.inputs)
    dimensions = {name: torch.export.Dim(name, max=bound) for name, (_, bound) in _TRACED.items()}
    dynamic = tuple(
        {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in signature.inputs
    )
    with _quiet_exporter(), torch.no_grad():
        traced = torch.export.export(module.eval(), (examples,), dynamic_shapes=(dynamic,))
        return _translate(traced, signature)


def _translate(traced: torch.export.ExportedProgram, signature: GraphSignature) -> onnx_ir.Model:
    remedy = "Report this with the versions of torch and onnxscript"
    try:
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: plain_attention},
        )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{signature.name} can't be written in ONNX: {error}", remedy) from error
    if program is None:
        raise ExportError(f"{signature.name} gave no graph", remedy)
    return program.model


def _simplify(model: onnx_ir.Model) -> None:
    """Fold shapes, merge equal nodes and drop the tracer's notes, in place."""
    for _ in range(2):
        fold_constants(model, onnx_shape_inference=True, should_fold=_should_fold)
        passes.Sequential(IdentityEliminationPass(), RemoveUnusedNodesPass(), CommonSubexpressionEliminationPass())(
            model
        )
    ClearMetadataAndDocStringPass()(model)


def _should_fold(node: onnx_ir.Node) -> bool | None:
    """Leave weights as they are: a copy of another shape, under a new name, could not be refitted."""
    source = node.inputs[0] if node.inputs else None
    reshaped = node.op_type == "Reshape" and source is not None and source.is_initializer()
    return False if reshaped or node.op_type == "Transpose" else None


def _keep_as_initialisers(model: onnx_ir.Model, weights: set[str]) -> None:
    """Leave only weights among the initialisers; what the exporter computed becomes Constant nodes. In place."""
    graph = model.graph
    for name in [name for name in graph.initializers if name not in weights]:
        value = graph.initializers.pop(name)
        constant = onnx_ir.node("Constant", [], attributes={"value": value.const_value}, name=f"node_{name}")
        constant.outputs[0].type, constant.outputs[0].shape = value.type, value.shape
        value.replace_all_uses_with(constant.outputs[0])
        constant.outputs[0].name = name
        graph.insert_before(graph[0], constant)


def plain_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Scaled dot-product attention over [..., heads, positions, head channels] as MatMul, Softmax, MatMul.

    TensorRT builds this form with fewer layout moves than the native Attention operator.
    """
    if dropout_p or enable_gqa or is_causal:
        raise ExportError(
            "attention with dropout, grouped queries or a causal flag has no plain form here", "Pass a mask"
        )
    if attn_mask is not None and attn_mask.dtype == onnx_ir.DataType.BOOL:
        raise ExportError("attention has a boolean mask, which can't be added to scores", "Pass 0 and −inf instead")
    rank = len(query.shape)
    factor = scale if scale is not None else float(query.shape[-1]) ** -0.5
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    scaled = op.Mul(query, op.CastLike(op.Constant(value_float=factor), query))
    scores = op.MatMul(scaled, op.Transpose(key, perm=swapped))
    if attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _example(spec: TensorSpec) -> Tensor:
    shape = [_TRACED[size][0] if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector: it takes a fifth of the time of a trace, which makes millions of objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the exporter's remarks on itself (missing torchvision, deprecated internals); errors still pass."""
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(level)


def add_function(model: onnx_ir.Model, function: onnx.FunctionProto) -> None:
    """Give the model a function body for its nodes of ``function``'s name. Changes the model in place."""
    body = onnx_ir.serde.deserialize_function(function)
    model.functions[body.identifier()] = body
    model.graph.opset_imports.setdefault(function.domain, DOMAIN_VERSION)


def rename_dimensions(model: onnx_ir.Model, renamed: Mapping[str, Dimension]) -> None:
    """Rename or fix symbolic dimensions throughout the graph, in place.

    A shape that computes with such a dimension (``2*rows``) is left out: every backend infers it again.
    """
    for value in _all_values(model):
        if value.shape is None:
            continue
        sizes = [size if isinstance(size, int) else renamed.get(str(size), str(size)) for size in value.shape]
        known = all(isinstance(size, int) or size in renamed.values() or size.isidentifier() for size in sizes)
        value.shape = onnx_ir.Shape(sizes) if known else None


def _all_values(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _name_border(model: onnx_ir.Model, signature: GraphSignature) -> None:
    """Give the graph its name, and every symbolic dimension the name it has in the signature."""
    model.graph.name = signature.name
    traced: dict[str, Dimension] = {}
    for value, spec in zip(model.graph.inputs, signature.inputs, strict=True):
        traced |= {
            str(size): name for size, name in zip(value.shape or (), spec.shape, strict=True) if isinstance(name, str)
        }
    rename_dimensions(model, traced)
    for values, specs in ((model.graph.inputs, signature.inputs), (model.graph.outputs, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            _check_border(value, spec)
            value.shape = onnx_ir.Shape(spec.shape)


def _check_border(value: onnx_ir.Value, spec: TensorSpec) -> None:
    found = value.dtype.numpy().name if value.dtype is not None else "unknown"
    if value.name != spec.name or found != spec.dtype:
        raise ExportError(
            f"the graph has {value.name} of type {found} where {spec.name} of type {spec.dtype} was promised",
            "Check the wrapper's order of tensors and its casts",
        )
