"""``live2diff::TemporalAttention``: a node the engine can cut at, whose function body is plain ONNX.

ONNX Runtime runs the body; TensorRT inlines it, or the engine replaces the node by a kernel that reads the ring.
"""

from __future__ import annotations

import onnx
import onnx.parser
import torch
from torch import Tensor

from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP
from live2diff_trt.model.temporal_attention import PositionTables, StreamingAttend

OPSET = 21
"""The first opset with a GroupNormalization that exporters keep whole."""
DOMAIN_VERSION = 1

# The same function as kernels/reference.py, streaming_attention. One query per position, so a score is a product and
# a sum over a head's channels, not a matrix product. The row's own frame is a 17th key: its score is concatenated to
# the others, its key is not. Softmax is computed in float32.
_FUNCTION = f"""
<domain: "{TEMPORAL_ATTENTION_DOMAIN}", opset_import: ["" : {OPSET}]>
{TEMPORAL_ATTENTION_OP} <heads> (
    q, k, v, past_k, past_v, pe_q, pe_k, pe_v, position, past_position, past_bias
) => (out)
{{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    last = Constant <value_ints = [-1]> ()

    q_table = Gather <axis = 0> (pe_q, position)
    k_table = Gather <axis = 0> (pe_k, position)
    v_table = Gather <axis = 0> (pe_v, position)
    q_position = Unsqueeze (q_table, one)
    k_position = Unsqueeze (k_table, one)
    v_position = Unsqueeze (v_table, one)
    q_placed = Add (q, q_position)
    k_placed = Add (k, k_position)
    v_placed = Add (v, v_position)
    q_frame = Unsqueeze (q_placed, one)
    k_frame = Unsqueeze (k_placed, one)
    v_frame = Unsqueeze (v_placed, one)

    past_k_table = Gather <axis = 0> (pe_k, past_position)
    past_v_table = Gather <axis = 0> (pe_v, past_position)
    past_k_position = Unsqueeze (past_k_table, two)
    past_v_position = Unsqueeze (past_v_table, two)
    past_k_placed = Add (past_k, past_k_position)
    past_v_placed = Add (past_v, past_v_position)

    head_count = Constant <value_int: int = @heads> ()
    head_axis = Reshape (head_count, one)
    outer = Constant <value_ints = [0, 0, 0]> ()
    by_head = Concat <axis = 0> (outer, head_axis, last)
    past_products = Mul (q_frame, past_k_placed)
    here_products = Mul (q_frame, k_frame)
    past_products_by_head = Reshape (past_products, by_head)
    here_products_by_head = Reshape (here_products, by_head)
    past_dots = ReduceSum (past_products_by_head, last)
    here_dots = ReduceSum (here_products_by_head, last)

    head_channels = Shape <start = 4> (here_products_by_head)
    head_channels_float = Cast <to = 1> (head_channels)
    divisor = Sqrt (head_channels_float)
    bias_axes = Constant <value_ints = [2, 3, 4]> ()
    bias_unsqueezed = Unsqueeze (past_bias, bias_axes)
    bias = Cast <to = 1> (bias_unsqueezed)
    past_dots_float = Cast <to = 1> (past_dots)
    here_dots_float = Cast <to = 1> (here_dots)
    past_scaled = Div (past_dots_float, divisor)
    here_scores = Div (here_dots_float, divisor)
    past_scores = Add (past_scaled, bias)
    scores = Concat <axis = 1> (past_scores, here_scores)
    weights_float = Softmax <axis = 1> (scores)
    weights = CastLike (weights_float, q)

    end = Constant <value_ints = [9223372036854775807]> ()
    past_weights = Slice (weights, zero, last, one)
    here_weights = Slice (weights, last, end, one)
    past_values = Reshape (past_v_placed, by_head)
    here_values = Reshape (v_frame, by_head)
    past_weighted = Mul (past_values, past_weights)
    here_weighted = Mul (here_values, here_weights)
    past_sum = ReduceSum (past_weighted, one)
    sum = Add (past_sum, here_weighted)
    shape = Shape (q)
    out = Reshape (sum, shape)
}}
"""


def temporal_attention_function() -> onnx.FunctionProto:
    """Return the node's body as a model-local function."""
    return onnx.parser.parse_function(_FUNCTION)


class OnnxStreamingAttend(StreamingAttend):
    """Attention for one tick while tracing: emits one node per temporal attention instead of computing it."""

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, tables: PositionTables
    ) -> Tensor:
        (out,) = torch.onnx.ops.symbolic_multi_out(
            f"{TEMPORAL_ATTENTION_DOMAIN}::{TEMPORAL_ATTENTION_OP}",
            (q, k, v, past_k, past_v, *tables, *self._window),
            {"heads": self._heads},
            dtypes=(q.dtype,),
            shapes=(q.shape,),
            version=DOMAIN_VERSION,
        )
        return out
