"""The warm-up graph, made from the tick's: the same network over the sink's frames, attention in both directions.

Only the temporal attention nodes change, so both graphs have the same initialisers and share one data file.
"""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir
from onnx_ir.convenience import replace_nodes_and_values

from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP, GraphSignature
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.onnx_graph import add_function, rename_dimensions
from live2diff_trt.export.temporal_op import OPSET

WARM_UP_ATTENTION_OP = "WarmUpAttention"

# The same function as kernels/reference.py, warm_up_attention: frame f attends from position f, to all frames.
_FUNCTION = f"""
<domain: "{TEMPORAL_ATTENTION_DOMAIN}", opset_import: ["" : {OPSET}]>
{WARM_UP_ATTENTION_OP} <heads> (q, k, v, pe_q, pe_k, pe_v) => (out)
{{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    last = Constant <value_ints = [-1]> ()
    frames = Shape <start = 0, end = 1> (q)
    q_table = Slice (pe_q, zero, frames, zero)
    k_table = Slice (pe_k, zero, frames, zero)
    v_table = Slice (pe_v, zero, frames, zero)
    q_position = Unsqueeze (q_table, one)
    k_position = Unsqueeze (k_table, one)
    v_position = Unsqueeze (v_table, one)
    q_placed = Add (q, q_position)
    k_placed = Add (k, k_position)
    v_placed = Add (v, v_position)

    head_count = Constant <value_int: int = @heads> ()
    head_axis = Reshape (head_count, one)
    outer = Constant <value_ints = [0, 0]> ()
    by_head = Concat <axis = 0> (outer, head_axis, last)
    q_by_head = Reshape (q_placed, by_head)
    k_by_head = Reshape (k_placed, by_head)
    v_by_head = Reshape (v_placed, by_head)
    queries = Transpose <perm = [1, 2, 0, 3]> (q_by_head)
    keys = Transpose <perm = [1, 2, 3, 0]> (k_by_head)
    values = Transpose <perm = [1, 2, 0, 3]> (v_by_head)

    head_channels = Shape <start = 3> (queries)
    head_channels_float = Cast <to = 1> (head_channels)
    divisor = Sqrt (head_channels_float)
    dots = MatMul (queries, keys)
    dots_float = Cast <to = 1> (dots)
    scores = Div (dots_float, divisor)
    weights_float = Softmax <axis = -1> (scores)
    weights = CastLike (weights_float, q)
    attended = MatMul (weights, values)
    frames_first = Transpose <perm = [2, 0, 1, 3]> (attended)
    shape = Shape (q)
    out = Reshape (frames_first, shape)
}}
"""


def warm_up_attention_function() -> onnx.FunctionProto:
    """Return the warm-up node's body as a model-local function."""
    return onnx.parser.parse_function(_FUNCTION)


def make_warm_up_graph(tick: onnx_ir.Model, signature: GraphSignature) -> onnx_ir.Model:
    """Return a copy of the tick's graph, weights shared, that takes the warm-up frames as rows."""
    model = tick.clone()
    graph = model.graph
    graph.name = signature.name
    for node in list(graph):
        if (node.domain, node.op_type) == (TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP):
            _replace_attention(graph, node)
    kept = {spec.name for spec in signature.inputs}
    for value in [value for value in graph.inputs if value.name not in kept]:
        if value.uses():
            raise ExportError(
                f"{value.name} is used outside temporal attention", "Keep the past to the attention nodes"
            )
        graph.inputs.remove(value)
    rename_dimensions(model, {"rows": signature.outputs[0].shape[0]})
    model.functions.clear()
    add_function(model, warm_up_attention_function())
    return model


def _replace_attention(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    q, k, v, _past_k, _past_v, pe_q, pe_k, pe_v = node.inputs[:8]
    replacement = onnx_ir.node(
        WARM_UP_ATTENTION_OP,
        [q, k, v, pe_q, pe_k, pe_v],
        domain=TEMPORAL_ATTENTION_DOMAIN,
        attributes=dict(node.attributes),
        name=node.name,
    )
    (old,), (new,) = node.outputs, replacement.outputs
    new.name, new.type, new.shape = old.name, old.type, old.shape
    replace_nodes_and_values(graph, node, [node], [replacement], [old], [new])
