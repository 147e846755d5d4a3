"""One network becomes one plan, or a typed error that names the graph, the node, the dimension."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.engine.errors import FlavourError, PlanBuildError
from live2diff_trt.engine.flavour import Flavour, choose_flavour
from live2diff_trt.engine.plan_builder import PlanOptions, build_plan, fix_dimensions

ADA = PlanOptions((8, 9))


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    return choose_flavour("tensorrt-rtx", None)[0]


def make_model(*nodes: onnx.NodeProto, rows: int | str = 2, domain: str = "") -> onnx.ModelProto:
    """A graph from x, [rows, 4] float32, to y."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 4]) for name in ("x", "y"))
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(list(nodes), "graph", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 21)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def linear(rows: int | str = 2) -> onnx.ModelProto:
    return make_model(helper.make_node("MatMul", ["x", "w"], ["y"], name="linear"), rows=rows)


def build(flavour: Flavour, model: onnx.ModelProto, options: PlanOptions = ADA, **extra: Any) -> bytes:
    return build_plan(flavour, "small", model.SerializeToString(), Path("small.onnx"), options, **extra)


def test_a_plan_comes_out_and_every_phase_is_told(rtx: Flavour) -> None:
    phases: list[tuple[str, int, int]] = []
    plan = build(rtx, linear(), on_phase=lambda *phase: phases.append(phase))
    assert isinstance(plan, bytes)
    assert len(plan) > 1000
    assert phases[0][0] == "Building engine"
    assert all(0 <= done <= steps for _, done, steps in phases)
    steps = phases[0][2]
    assert ("Building engine", steps, steps) in phases


def test_the_target_decides_the_plan(rtx: Flavour) -> None:
    """Plans for Hopper are those for 8.9, which a plan for 8.6 is not."""
    plans = {target: build(rtx, linear(), PlanOptions(target)) for target in ((8, 6), (8, 9), (9, 0))}
    assert len(plans[9, 0]) == len(plans[8, 9])
    assert plans[8, 6] != plans[8, 9]


@pytest.mark.parametrize("target", [(7, 5), (8, 0), (12, 0), (12, 1)])
def test_every_target_of_rtx_builds(rtx: Flavour, target: tuple[int, int]) -> None:
    assert build(rtx, linear(), PlanOptions(target))


def test_a_detailed_plan_describes_its_layers(rtx: Flavour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "live2diff_trt.tensorrt")
    build(rtx, linear(), PlanOptions((8, 9), detailed=True))
    assert any(message.startswith("Layers:") for message in caplog.messages)
    caplog.clear()
    build(rtx, linear())
    assert not any(message.startswith("Layers:") for message in caplog.messages)


def test_symbolic_dimensions_get_values(rtx: Flavour) -> None:
    assert build(rtx, linear(rows="rows"), PlanOptions((8, 9), dimensions={"rows": 3}))


def test_a_dimension_without_a_value_is_an_error(rtx: Flavour) -> None:
    with pytest.raises(PlanBuildError, match=r"x of small is \['rows', 4\], but plans have static shapes"):
        build(rtx, linear(rows="rows"), PlanOptions((8, 9), dimensions={"frames": 3}))


def test_fixing_dimensions_leaves_others_alone() -> None:
    model = linear(rows="rows")
    model.graph.value_info.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["rows", "tokens"]))
    fix_dimensions(model, {"rows": 5})
    shapes = [
        [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
    ]
    assert shapes == [[5, 4], [5, 4], [5, "tokens"]]


def test_an_operator_that_tensorrt_lacks_names_graph_and_node(rtx: Flavour) -> None:
    node = helper.make_node("Nonsense", ["x"], ["y"], name="the_odd_one", domain="elsewhere")
    with pytest.raises(PlanBuildError, match=r"can't read small: .*Nonsense.* in node the_odd_one \(Nonsense\)"):
        build(rtx, make_model(node, domain="elsewhere"))


def test_external_data_that_is_missing_is_an_error(rtx: Flavour, tmp_path: Path) -> None:
    model = linear()
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="missing.data")
    with pytest.raises(PlanBuildError, match=r"can't read small: .*missing\.data"):
        build_plan(rtx, "small", model.SerializeToString(), tmp_path / "small.onnx", ADA)


def test_external_data_is_read_beside_the_graph(rtx: Flavour, tmp_path: Path) -> None:
    model = beside(linear(), tmp_path, np.eye(4, dtype=np.float32))
    assert build_plan(rtx, "small", model, tmp_path / "small.onnx", ADA)


def beside(model: onnx.ModelProto, folder: Path, values: NDArray[Any]) -> bytes:
    """Return a graph whose weight lies beside it."""
    (folder / "weights.data").write_bytes(values.tobytes())
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.data")
    return model.SerializeToString()


def test_values_take_the_place_of_what_lies_beside_the_graph(rtx: Flavour, tmp_path: Path) -> None:
    """The plan is, byte for byte, that of a graph beside which these lie."""
    path, others = tmp_path / "small.onnx", np.arange(32, dtype=np.float32).reshape(4, 8).T[::2]
    eye, other = np.eye(4, dtype=np.float32), np.ascontiguousarray(others)
    given = build_plan(rtx, "small", beside(linear(), tmp_path, eye), path, PlanOptions((8, 9), values={"w": others}))
    plain = build_plan(rtx, "small", beside(linear(), tmp_path, eye), path, ADA)
    assert given == build_plan(rtx, "small", beside(linear(), tmp_path, other), path, ADA)
    assert given != plain


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("v", np.eye(4, dtype=np.float32), r"small can't be built with another v, float32 \[4, 4\]"),
        ("w", np.eye(3, dtype=np.float32), r"small can't be built with another w, float32 \[3, 3\]"),
    ],
)
def test_values_that_do_not_fit_the_graph_are_an_error(
    rtx: Flavour, tmp_path: Path, name: str, values: NDArray[Any], reason: str
) -> None:
    model = beside(linear(), tmp_path, np.eye(4, dtype=np.float32))
    with pytest.raises(PlanBuildError, match=reason):
        build_plan(rtx, "small", model, tmp_path / "small.onnx", PlanOptions((8, 9), values={name: values}))


def test_a_graph_that_cant_be_read_is_an_error_with_other_values_too(rtx: Flavour, tmp_path: Path) -> None:
    values = {"w": np.eye(4, dtype=np.float32)}
    with pytest.raises(PlanBuildError, match="can't read small"):
        build_plan(rtx, "small", b"not a graph", tmp_path / "small.onnx", PlanOptions((8, 9), values=values))
    odd = make_model(
        helper.make_node("Nonsense", ["x"], ["y"], name="the_odd_one", domain="elsewhere"), domain="elsewhere"
    )
    with pytest.raises(PlanBuildError, match=r"can't read small: .*Nonsense.* in node the_odd_one"):
        build(rtx, odd, PlanOptions((8, 9), values=values))


@pytest.mark.parametrize("dimensions", [{}, {"rows": 1}])
def test_what_is_no_graph_is_an_error(rtx: Flavour, dimensions: dict[str, int]) -> None:
    with pytest.raises((BundleError, PlanBuildError), match="small"):
        build_plan(rtx, "small", b"not a graph", Path("small.onnx"), PlanOptions((8, 9), dimensions=dimensions))


def test_refittable_plans_need_a_gpu(rtx: Flavour) -> None:
    with pytest.raises(PlanBuildError, match="a refittable plan can't be built without a GPU"):
        build(rtx, linear(), PlanOptions((8, 9), refittable=True))


def test_a_target_that_can_not_be_had_is_an_error(rtx: Flavour) -> None:
    with pytest.raises(FlavourError, match=r"compute capability 8\.7"):
        build(rtx, linear(), PlanOptions((8, 7)))


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ZeroDivisionError])
def test_what_the_callback_raises_stops_the_build(
    rtx: Flavour, tiny_bundle: Path, reason: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """The whole UNet takes many seconds to build; it is stopped in its first steps."""
    caplog.set_level(logging.ERROR)
    path = tiny_bundle / "unet.onnx"
    model = onnx.load(path, load_external_data=False).SerializeToString()

    def stop(phase: str, done: int, steps: int) -> None:
        if phase == "Optimizing graph":
            raise reason

    started = time.perf_counter()
    with pytest.raises(reason):
        build_plan(rtx, "unet", model, path, PlanOptions((8, 9), dimensions={"rows": 2}), stop)
    assert time.perf_counter() - started < 5
    assert caplog.records == []
