"""Does a plan compute what its graph says? Compares whoever runs plans with ONNX Runtime on the CPU, per network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper

from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.engine.deviation import relative_error
from live2diff_trt.engine.errors import PlanBuildError
from live2diff_trt.engine.networks import Network
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.engine.plan_builder import fix_dimensions
from live2diff_trt.engine.random_inputs import random_input

Array = NDArray[Any]

TOLERANCE = 2e-2
"""Largest relative error of an output that passes. It is the same in both dtypes: TensorRT-RTX multiplies float32 as
TF32, which keeps as many bits of an operand as float16 does. The deepest networks are off by 7e-3."""

RunPlan = Callable[[Network, Mapping[str, Array]], Mapping[str, Array]]
"""Runs a network's plan once: inputs → outputs by name, each in the shape that the graph gives it."""
OnPlan = Callable[[str, int, int], None]
"""Told the plan that is compared next, how many were compared, and how many there are."""


@dataclass(frozen=True)
class PlanCheck:
    """How far a plan is from its graph.

    Attributes:
        plan: its name.
        tensor: the output that is furthest off.
        error: ‖plan − graph‖₂ / ‖graph‖₂ of that output; infinity if it holds what is no number.
        tolerance: the largest error that passes.
    """

    plan: str
    tensor: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def check_networks(
    folder: Path, networks: Sequence[Network], run_plan: RunPlan, on_plan: OnPlan = lambda *_: None
) -> Iterator[PlanCheck]:
    """Run every network's plan and its graph on the same random inputs, one network after the other.

    Args:
        folder: of the bundle; weights lie there.
        networks: what to compare.
        run_plan: runs a plan.
        on_plan: told what comes next.

    Raises:
        BackendError: if ONNX Runtime is not installed, or fails.
        BundleError: if a graph is damaged.
    """
    graphs = OnnxGraphs(folder, (), OnnxRuntimeOptions())
    for index, network in enumerate(networks):
        on_plan(network.name, index, len(networks))
        yield _check_network(network, graphs, run_plan)


def refuse_failed(checks: Sequence[PlanCheck]) -> None:
    """Raise PlanBuildError, naming the plan that is furthest off, unless all checks passed."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return
    worst = max(failed, key=lambda check: check.error / check.tolerance)
    raise PlanBuildError(
        f"{len(failed)} of {len(checks)} plans do not compute what their graphs say: {worst.plan} gives {worst.tensor} "
        f"with a relative error of {worst.error:.1e}, {worst.tolerance:g} is allowed",
        "Build them again with --overwrite; if that does not help, try the other --form, or run the bundle with "
        "--backend onnxruntime",
    )


def _check_network(network: Network, graphs: OnnxGraphs, run_plan: RunPlan) -> PlanCheck:
    model = onnx.load_model_from_string(network.serialise())
    fix_dimensions(model, network.dimensions)
    border = _describe_border(network.name, model)
    generator = np.random.default_rng(list(network.name.encode()))  # the same, whatever else is compared
    inputs = {spec.name: random_input(spec.name, _sizes(spec), spec.dtype, generator) for spec in border.inputs}
    found = run_plan(network, inputs)
    wanted = graphs.open_model(model, border).run(inputs)
    checks = [
        PlanCheck(network.name, spec.name, relative_error(found[spec.name], wanted[spec.name]), TOLERANCE)
        for spec in border.outputs
    ]
    return max(checks, key=lambda check: check.error)


def _describe_border(name: str, model: onnx.ModelProto) -> GraphSignature:
    inputs, outputs = (tuple(map(_describe, values)) for values in (model.graph.input, model.graph.output))
    return GraphSignature(name, inputs, outputs)


def _describe(value: ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_value for dimension in tensor.shape.dim)
    return TensorSpec(value.name, shape, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(map(int, spec.shape))
