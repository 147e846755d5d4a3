"""Graphs of one structure differ in names and weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.networks import collect_networks
from live2diff_trt.engine.plan_manifest import PlanKey
from live2diff_trt.engine.structure import hash_structure

GRAPH = """<ir_version: 10, opset_import: ["" : 21]>
graph (float[rows, 16] x) => (float[rows, 8] y) {
    product = MatMul (x, weight)
    y = LeakyRelu <alpha = 0.25> (product)
}"""


def structure(
    text: str = GRAPH,
    weight: tuple[int, ...] = (16, 8),
    seed: int = 0,
    name: str = "weight",
    dimensions: Mapping[str, int] | None = None,
    channels_last: tuple[str, ...] = (),
    dtype: Any = np.float32,
) -> str:
    model = onnx.parser.parse_model(text)
    values = np.random.default_rng(seed).standard_normal(weight).astype(dtype)
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return hash_structure(model, dimensions or {"rows": 2}, channels_last)


def test_names_and_weights_do_not_count() -> None:
    renamed = GRAPH.replace("product", "other").replace(" x", " a").replace("(x", "(a").replace("weight", "matrix")
    assert structure() == structure(seed=1) == structure(renamed, name="matrix")


@pytest.mark.parametrize(
    "other",
    [
        {"weight": (16, 4)},
        {"dtype": np.float16},
        {"dimensions": {"rows": 3}},
        {"channels_last": ("x",)},
        {"channels_last": ("y",)},
        {"text": GRAPH.replace("LeakyRelu", "Elu").replace("alpha = 0.25", "alpha = 1.0")},
        {"text": GRAPH.replace("0.25", "0.5")},
        {"text": GRAPH.replace("float[rows, 16]", "float[rows, 3, 16]")},
        {"text": GRAPH.replace("MatMul (x, weight)", "MatMul (weight, x)")},
        {"text": GRAPH.replace(": 21", ": 22")},
    ],
)
def test_everything_else_does(other: dict[str, Any]) -> None:
    assert structure(**other) != structure()


def test_a_constant_that_a_kernel_may_hold_does() -> None:
    assert structure(weight=(1, 8)) != structure(weight=(1, 8), seed=1)


def test_a_weight_that_lies_elsewhere_is_not_looked_for() -> None:
    def hash_external(location: str) -> str:
        model = onnx.parser.parse_model(GRAPH)
        weight = TensorProto(name="weight", dims=[1, 8], data_type=TensorProto.FLOAT)
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        model.graph.initializer.append(weight)
        return hash_structure(model, {}, ())

    assert hash_external("here.data") == hash_external("there.data")


def test_repeated_blocks_of_a_unet_share_structures_and_the_two_whole_forms_do_not(tiny_bundle: Any) -> None:
    bundle = Bundle.open(tiny_bundle)
    key = PlanKey(bundle.digest, "tensorrt-rtx", "1.6", (9, 0), "split", 2)
    _, segments = collect_networks(bundle, key)
    structures = [network.structure() for network in segments]
    assert len(set(structures)) < 0.7 * len(structures)
    shapes = {structure: _border(network.model) for structure, network in zip(structures, segments, strict=True)}
    assert all(
        _border(network.model) == shapes[structure] for structure, network in zip(structures, segments, strict=True)
    )
    _, whole = collect_networks(bundle, replace(key, form="whole"))
    by_name = {network.name: network.structure() for network in whole}
    assert len(set(by_name.values())) == len(by_name)


def _border(model: ModelProto | None) -> list[list[int]]:
    values = [] if model is None else [*model.graph.input, *model.graph.output]
    return [[dimension.dim_value for dimension in value.type.tensor_type.shape.dim] for value in values]
