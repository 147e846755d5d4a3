"""The two attention nodes: their plain-ONNX bodies, run by ONNX Runtime, against the numpy reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP
from live2diff_trt.export.temporal_op import OPSET, temporal_attention_function
from live2diff_trt.export.warm_up_graph import WARM_UP_ATTENTION_OP, warm_up_attention_function
from live2diff_trt.kernels import reference

Arrays = dict[str, NDArray[Any]]
WINDOW, SINK = 16, 8


def run_node(operator: str, function: onnx.FunctionProto, inputs: Arrays, heads: int) -> NDArray[Any]:
    """Run one node with its body as a model's only node."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    out = helper.make_tensor_value_info("out", values[0].type.tensor_type.elem_type, inputs["q"].shape)
    node = helper.make_node(operator, list(inputs), ["out"], domain=TEMPORAL_ATTENTION_DOMAIN, heads=heads)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(TEMPORAL_ATTENTION_DOMAIN, 1)]
    model = helper.make_model(
        helper.make_graph([node], "node", values, [out]), functions=[function], opset_imports=opsets, ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result: NDArray[Any] = session.run(None, inputs)[0]
    return result


def random_inputs(rows: int, positions: int, channels: int, dtype: str, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[Any]:
        return generator.standard_normal(shape).astype(dtype)

    hidden = generator.random((rows, WINDOW)) < 0.4
    hidden[:, :SINK] = False
    past = {name: normal(rows, WINDOW, positions, channels) for name in ("past_k", "past_v")}
    for array in past.values():
        array[hidden] = 1000  # what is hidden must not be seen
    return {
        **{name: normal(rows, positions, channels) for name in ("q", "k", "v")},
        **past,
        **{name: normal(WINDOW, channels) for name in ("pe_q", "pe_k", "pe_v")},
        "position": generator.integers(SINK, WINDOW, rows).astype(np.int32),
        "past_position": generator.integers(0, WINDOW, (rows, WINDOW)).astype(np.int32),
        "past_bias": np.where(hidden, -np.inf, 0).astype(dtype),
    }


def in_float64(inputs: Arrays) -> list[NDArray[Any]]:
    return [array.astype(np.float64) if array.dtype.kind == "f" else array for array in inputs.values()]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 4e-3)])
@pytest.mark.parametrize(("rows", "positions", "channels", "heads"), [(1, 5, 32, 8), (3, 12, 40, 1), (2, 4, 64, 4)])
def test_the_streaming_body_equals_the_reference(
    rows: int, positions: int, channels: int, heads: int, dtype: str, tolerance: float
) -> None:
    inputs = random_inputs(rows, positions, channels, dtype, seed=rows)
    found = run_node(TEMPORAL_ATTENTION_OP, temporal_attention_function(), inputs, heads)
    q, k, v, past_k, past_v, pe_q, pe_k, pe_v, position, past_position, past_bias = in_float64(inputs)
    tables = (pe_q, pe_k, pe_v)
    wanted = reference.streaming_attention(q, k, v, past_k, past_v, tables, position, past_position, past_bias, heads)
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
    assert found.dtype == dtype


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 4e-3)])
@pytest.mark.parametrize(("frames", "positions", "channels", "heads"), [(8, 6, 32, 8), (5, 3, 40, 1)])
def test_the_warm_up_body_equals_the_reference(
    frames: int, positions: int, channels: int, heads: int, dtype: str, tolerance: float
) -> None:
    everything = random_inputs(frames, positions, channels, dtype, seed=frames)
    inputs = {name: everything[name] for name in ("q", "k", "v", "pe_q", "pe_k", "pe_v")}
    found = run_node(WARM_UP_ATTENTION_OP, warm_up_attention_function(), inputs, heads)
    q, k, v, *tables = in_float64(inputs)
    wanted = reference.warm_up_attention(q, k, v, (tables[0], tables[1], tables[2]), heads)
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
