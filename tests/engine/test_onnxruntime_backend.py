"""Graphs opened by ONNX Runtime: damage is a typed error, a provider is never swapped, norms keep their digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs, OnnxRuntimeOptions

SHAPE = (2, 8, 3, 5)
BORDER = GraphSignature("norm", (TensorSpec("x", SHAPE, "float32"),), (TensorSpec("y", SHAPE, "float32"),))


@pytest.fixture
def norm(tmp_path: Path) -> OnnxGraph:
    """A graph of one GroupNormalization: 2 groups, weights 1…8, biases 0…7."""
    weights = [
        numpy_helper.from_array(np.arange(1, 9, dtype=np.float32), "scale"),
        numpy_helper.from_array(np.arange(8, dtype=np.float32), "bias"),
    ]
    node = helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2, epsilon=1e-6)
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    graph = helper.make_graph([node], "norm", values[:1], values[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "norm.onnx"
    )
    return OnnxGraphs(tmp_path, [BORDER], OnnxRuntimeOptions()).open("norm")


def normalise(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    groups = x.reshape(2, 2, -1)
    deviation = np.sqrt(groups.var(-1, keepdims=True) + 1e-6)
    normalised = ((groups - groups.mean(-1, keepdims=True)) / deviation).reshape(SHAPE)
    return normalised * np.arange(1, 9)[:, None, None] + np.arange(8)[:, None, None]


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_group_norms_keep_their_digits_beside_a_large_mean(norm: OnnxGraph, mean: float) -> None:
    x = (np.random.default_rng(0).standard_normal(SHAPE) + mean).astype(np.float32)
    np.testing.assert_allclose(norm.run({"x": x})["y"], normalise(x.astype(np.float64)), atol=2e-3 if mean else 1e-5)


def test_the_norm_of_a_constant_is_its_bias(norm: OnnxGraph) -> None:
    """By the mean of squares the variance here is below zero, and the norm not a number."""
    y = norm.run({"x": np.full(SHAPE, 33.3, np.float32)})["y"]
    np.testing.assert_allclose(y, np.broadcast_to(np.arange(8)[:, None, None], SHAPE), atol=0.1)


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"\x08\x0a\x12"])
def test_what_is_no_graph_is_a_bundle_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "norm.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"norm\.onnx.*Export the bundle again"):
        OnnxGraphs(tmp_path, [BORDER], OnnxRuntimeOptions()).open("norm")


def test_a_provider_that_is_missing_is_an_error_not_a_fallback(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider.*onnxruntime-gpu"):
        OnnxGraphs(tmp_path, [BORDER], OnnxRuntimeOptions(provider="cuda"))


def test_inputs_of_another_shape_are_a_backend_error(norm: OnnxGraph) -> None:
    with pytest.raises(BackendError, match="ONNX Runtime failed in norm"):
        norm.run({"x": np.zeros((1, 2), np.float32)})


def test_the_graph_in_the_bundle_is_left_as_it_is(norm: OnnxGraph, tmp_path: Path) -> None:
    assert [node.op_type for node in onnx.load(tmp_path / "norm.onnx").graph.node] == ["GroupNormalization"]


def test_a_provider_that_does_not_start_is_an_error_not_a_fallback(
    norm: OnnxGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build for CUDA on a machine whose libraries are missing opens the graph on the CPU, and only logs it."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    open_session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda graph, options, providers: open_session(graph, options))
    with pytest.raises(BackendError, match="CUDAExecutionProvider does not start"):
        OnnxGraphs(tmp_path, [BORDER], OnnxRuntimeOptions(provider="cuda")).open("norm")
