"""A GELU with casts round it computes the same, more exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine import networks
from live2diff_trt.engine.gelu import in_float32
from live2diff_trt.engine.plan_manifest import PlanKey

GEGLU = """<ir_version: 10, opset_import: ["" : 21]>
graph (DTYPE[rows, 16] x) => (DTYPE[rows, 8] y) <DTYPE[rows, 8] value, DTYPE[rows, 8] gate, DTYPE[rows, 8] opened> {
    value, gate = Split <axis = -1, num_outputs = 2> (x)
    opened = Gelu <approximate = "none"> (gate)
    y = Mul (value, opened)
}"""


def make_geglu(dtype: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(GEGLU.replace("DTYPE", dtype))


def test_in_float16_the_gelu_alone_is_float32() -> None:
    model = make_geglu("float16")
    in_float32(model)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    assert [node.op_type for node in model.graph.node] == ["Split", "Cast", "Gelu", "Cast", "Mul"]
    x = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float16)
    outputs: Any = ReferenceEvaluator(model).run(None, {"x": x})
    found = np.asarray(outputs[0])
    assert found.dtype == np.float16
    value, gate = np.split(x.astype(np.float64), 2, axis=-1)
    wanted = value * gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float", "double"])
def test_in_another_type_nothing_changes(dtype: str) -> None:
    model = make_geglu(dtype)
    in_float32(model)
    assert model == make_geglu(dtype)


def test_both_plans_of_the_whole_form_have_exact_gelus(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact: list[int] = []
    monkeypatch.setattr(networks, "in_float32", lambda model: exact.append(id(model)))
    bundle = Bundle.open(tiny_bundle)
    _, collected = networks.collect_networks(bundle, PlanKey(bundle.digest, "tensorrt-rtx", "1.6", (9, 0), "whole", 2))
    whole = {network.name: network.model for network in collected if network.name in ("unet", "unet_warmup")}
    assert [id(whole[name]) for name in ("unet_warmup", "unet")] == exact
    for model in whole.values():
        assert model is not None
        assert "Gelu" in {node.op_type for node in model.graph.node}
