"""Group norms written as other operators compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from live2diff_trt.engine.group_norms import as_instance_norms, as_layer_norms_where_groups_are_small

GENERATOR = np.random.default_rng(0)


def make_norm(channels: int, groups: int, side: int) -> ModelProto:
    """One group norm of [rows, channels, side, side] with weights of its own."""
    shape: list[str | int | None] = ["rows", channels, side, side]
    picture, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    weights = [
        numpy_helper.from_array(GENERATOR.standard_normal(channels).astype(np.float32), name) for name in ("s", "b")
    ]
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], name="norm", num_groups=groups, epsilon=1e-6)
    graph = helper.make_graph([node], "norms", [picture], [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: ModelProto, picture: NDArray[np.float32]) -> NDArray[np.float32]:
    onnx.checker.check_model(model)
    outputs: Any = ReferenceEvaluator(model).run(None, {"x": picture})
    return np.asarray(outputs[0], np.float32)


def normalise(model: ModelProto, picture: NDArray[np.float32], groups: int) -> NDArray[np.float64]:
    """In float64: of two values the definition by squares leaves no digit in float32."""
    scale, bias = (
        numpy_helper.to_array(weight).astype(np.float64)[:, None, None] for weight in model.graph.initializer
    )
    grouped = picture.astype(np.float64).reshape(len(picture), groups, -1)
    deviation = np.sqrt(grouped.var(-1, keepdims=True) + 1e-6)
    normalised = (grouped - grouped.mean(-1, keepdims=True)) / deviation
    result: NDArray[np.float64] = normalised.reshape(picture.shape) * scale + bias
    return result


@pytest.mark.parametrize("rewrite", [as_instance_norms, as_layer_norms_where_groups_are_small])
@pytest.mark.parametrize(("channels", "groups", "side"), [(64, 32, 1), (6, 3, 1), (8, 8, 2), (8, 2, 4)])
def test_a_rewritten_norm_is_the_same(
    rewrite: Callable[[ModelProto], None], channels: int, groups: int, side: int
) -> None:
    model = make_norm(channels, groups, side)
    picture = GENERATOR.standard_normal((3, channels, side, side)).astype(np.float32)
    wanted = normalise(model, picture, groups)
    rewrite(model)
    np.testing.assert_allclose(run(model, picture), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "groups", "side", "operator"),
    [
        (64, 32, 1, "LayerNormalization"),
        (14, 2, 1, "LayerNormalization"),
        (64, 32, 2, "GroupNormalization"),
        (320, 32, 8, "GroupNormalization"),
    ],
)
def test_only_norms_of_few_values_become_layer_norms(channels: int, groups: int, side: int, operator: str) -> None:
    model = make_norm(channels, groups, side)
    as_layer_norms_where_groups_are_small(model)
    assert Counter(node.op_type for node in model.graph.node)[operator] == 1
