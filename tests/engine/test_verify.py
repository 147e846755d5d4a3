"""What runs plans is compared with ONNX Runtime: exact results pass, others fail, by the dtype's tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.engine.errors import PlanBuildError
from live2diff_trt.engine.networks import Network
from live2diff_trt.engine.verify import PlanCheck, RunPlan, check_networks, refuse_failed

Array = NDArray[Any]
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def network(name: str = "double", dtype: str = "float32") -> Network:
    """Return a network of one symbolic dimension with two outputs: the input doubled, and negated."""
    element = DTYPES[dtype]
    names = ("sample", "doubled", "negated")
    sample, *outputs = (helper.make_tensor_value_info(one, element, ["rows", 5]) for one in names)
    nodes = [
        helper.make_node("Add", ["sample", "sample"], ["doubled"]),
        helper.make_node("Neg", ["sample"], ["negated"]),
    ]
    graph = helper.make_graph(nodes, name, [sample], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return Network(name, Path("double.onnx"), model, {"rows": 3})


def compute(_: Network, inputs: Mapping[str, Array]) -> dict[str, Array]:
    assert inputs["sample"].shape == (3, 5)
    return {"doubled": 2 * inputs["sample"], "negated": -inputs["sample"]}


def scale(tensor: str, factor: float) -> RunPlan:
    """Return a plan that is exact but for one output."""

    def run(network: Network, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = compute(network, inputs)
        return outputs | {tensor: (outputs[tensor] * factor).astype(outputs[tensor].dtype)}

    return run


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_results_pass(tmp_path: Path, dtype: str) -> None:
    (check,) = check_networks(tmp_path, [network(dtype=dtype)], compute)
    assert (check.plan, check.error, check.passed) == ("double", 0, True)
    refuse_failed([check])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("off", "passed"), [(1.9e-2, True), (2.1e-2, False)])
@pytest.mark.parametrize("tensor", ["doubled", "negated"])
def test_the_worst_tensor_is_judged(tmp_path: Path, dtype: str, off: float, passed: bool, tensor: str) -> None:
    (check,) = check_networks(tmp_path, [network(dtype=dtype)], scale(tensor, 1 + off))
    assert (check.tensor, check.passed) == (tensor, passed)
    assert check.error == pytest.approx(off, rel=0.05)


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_what_is_no_number_fails(tmp_path: Path, factor: float) -> None:
    (check,) = check_networks(tmp_path, [network()], scale("doubled", factor))
    assert (check.error, check.passed) == (np.inf, False)


def test_a_network_gets_the_same_inputs_whatever_else_is_compared(tmp_path: Path) -> None:
    seen: dict[str, list[Array]] = {"first": [], "second": []}

    def run(network: Network, inputs: Mapping[str, Array]) -> dict[str, Array]:
        seen[network.name].append(inputs["sample"])
        return compute(network, inputs)

    told: list[tuple[str, int, int]] = []
    list(check_networks(tmp_path, [network("first"), network("second")], run, lambda *plan: told.append(plan)))
    list(check_networks(tmp_path, [network("second")], run))
    assert told == [("first", 0, 2), ("second", 1, 2)]
    among_others, alone = seen["second"]
    assert np.array_equal(among_others, alone)
    assert not np.array_equal(among_others, seen["first"][0])


def test_the_error_names_the_plan_that_is_furthest_off() -> None:
    checks = [
        PlanCheck("depth", "depth_map", 1e-5, 1e-3),
        PlanCheck("unet", "model_output", 0.25, 1e-3),
        PlanCheck("vae_decoder", "image", 2e-3, 1e-3),
    ]
    with pytest.raises(PlanBuildError) as caught:
        refuse_failed(checks)
    assert "2 of 3 plans" in caught.value.problem
    assert "unet gives model_output with a relative error of 2.5e-01, 0.001 is allowed" in caught.value.problem
    assert "--overwrite" in caught.value.remedy


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "depth.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="not a readable ONNX graph"):
        list(check_networks(tmp_path, [Network("depth", tmp_path / "depth.onnx")], compute))
