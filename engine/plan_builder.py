"""One network → one plan: parses a graph, and has TensorRT compile it for one GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.engine.build_progress import OnPhase
from live2diff_trt.engine.errors import PlanBuildError
from live2diff_trt.engine.flavour import (
    ComputeCapability,
    Flavour,
    LogMessages,
    build_target,
    make_logger,
    refuse_target,
)

logger = logging.getLogger(__name__)

_Event = tuple[str, int, int]
_REPORT = "Run again with --verbose, and report what TensorRT logs together with the bundle's manifest"
_EXPORT_AGAIN = "Export the bundle again with `live2diff-trt export`"


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is built.

    Attributes:
        target: compute capability of the GPU that will run it.
        gpu: compute capability of the GPU in this machine, or None.
        dimensions: a value for every symbolic dimension of the graph: plans have static shapes.
        refittable: its weights can be replaced later. Needs a GPU.
        channels_last: inputs and outputs, [rows, channels, height, width] in the graph, that lie in memory as
            [rows, height, width, channels]: what convolutions work on, so that nothing is copied at the border.
        detailed: keep what an inspector needs to describe every layer.
        values: initialiser of the graph → what takes the place of its values beside the graph.
    """

    target: ComputeCapability
    gpu: ComputeCapability | None = None
    dimensions: Mapping[str, int] = field(default_factory=dict)
    refittable: bool = False
    channels_last: frozenset[str] = frozenset()
    detailed: bool = False
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict, compare=False)


def fix_dimensions(model: onnx.ModelProto, dimensions: Mapping[str, int]) -> None:
    """Give symbolic dimensions their values, in place: of inputs, outputs and what lies between."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in dimensions:
                dimension.dim_value = dimensions[dimension.dim_param]


def build_plan(
    flavour: Flavour,
    name: str,
    model: bytes,
    model_path: Path,
    options: PlanOptions,
    on_phase: OnPhase = lambda *_: None,
) -> bytes:
    """Build a plan.

    TensorRT works in a thread of its own, ``on_phase`` is called in the caller's. Whatever is raised there, Ctrl-C
    included, stops the build before it is raised again.

    Args:
        name: of the plan, for messages.
        model: the graph in ONNX.
        model_path: where the graph lies: its external data is read beside it.

    Raises:
        PlanBuildError: if TensorRT refuses the graph, or fails; if a dimension has no value; if the plan is to be
            refittable and there is no GPU.
        FlavourError: if the flavour can't build for the target on this machine.
        BundleError: if ``model`` is no ONNX graph.
    """
    refuse_target(flavour, options.target, options.gpu)
    if options.refittable and options.gpu is None:
        raise PlanBuildError(
            "a refittable plan can't be built without a GPU: TensorRT fails at the first convolution",
            "Build on the machine that will run the plans, or leave --refittable out",
        )
    model = _fix_serialised(model, model_path, options.dimensions)
    events: SimpleQueue[_Event | None] = SimpleQueue()
    stopped = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="build") as pool:
        monitor = _make_monitor(flavour, events.put, stopped)
        building = pool.submit(_Build(flavour, name, monitor).run, model, model_path, options)
        building.add_done_callback(lambda _: events.put(None))
        try:
            while (event := events.get()) is not None:
                on_phase(*event)
            return building.result()
        finally:
            stopped.set()


def _fix_serialised(model: bytes, path: Path, dimensions: Mapping[str, int]) -> bytes:
    if not dimensions:
        return model
    try:
        graph = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise BundleError(f"{path} is not a readable ONNX graph ({error})", _EXPORT_AGAIN) from error
    fix_dimensions(graph, dimensions)
    return graph.SerializeToString()


def _make_monitor(flavour: Flavour, report: Callable[[_Event], None], stopped: threading.Event) -> Any:
    """Return a monitor that reports every finished step, and stops the build when ``stopped`` is set."""
    base: Any = flavour.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        """Called by TensorRT, in the thread that builds."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Begin a phase, maybe inside another."""
            self._steps[phase_name] = num_steps
            report((phase_name, 0, num_steps))

        def phase_finish(self, phase_name: str) -> None:
            """End a phase, of which not every step was reported."""
            steps = self._steps[phase_name]
            report((phase_name, steps, steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Note a finished step; return whether to go on."""
            report((phase_name, step + 1, self._steps[phase_name]))
            return not stopped.is_set()

    return Monitor()


class _Build:
    """TensorRT's objects while one plan is built. They refer to each other, so they live and die together."""

    def __init__(self, flavour: Flavour, name: str, monitor: Any) -> None:
        self._flavour = flavour
        self._trt = flavour.module
        self._name = name
        self._monitor = monitor
        self._logger, self._messages = make_logger(flavour)

    def run(self, model: bytes, path: Path, options: PlanOptions) -> bytes:
        builder = self._make_builder()
        network = builder.create_network(0)
        given = {name: np.ascontiguousarray(values) for name, values in options.values.items()}  # outlive the parser
        parser = self._trt.OnnxParser(network, self._logger)  # owns the weights until the plan is built
        is_read = self._read_with(parser, given, model, path) if given else parser.parse(model, path=str(path))
        if not is_read:
            raise PlanBuildError(f"TensorRT can't read {self._name}: {_describe(parser, self._messages)}", _REPORT)
        self._refuse_dynamic(network)
        for tensor in _borders(network):
            if tensor.name in options.channels_last:
                tensor.allowed_formats = 1 << int(self._channels_last_format(tensor))
        plan = builder.build_serialized_network(network, self._configure(builder, options))
        if plan is None:
            raise PlanBuildError(f"TensorRT can't build {self._name}: {self._messages.first()}", _REPORT)
        return bytes(plan)

    def _read_with(self, parser: Any, values: Mapping[str, NDArray[Any]], model: bytes, path: Path) -> bool:
        """Read a graph with values in the place of some that lie beside it; return whether the parser could."""
        if not parser.load_model_proto(model, path=str(path)):
            return False
        for name, array in values.items():
            if not parser.load_initializer(name, array.ctypes.data, array.nbytes):
                raise PlanBuildError(
                    f"{self._name} can't be built with another {name}, {array.dtype} {list(array.shape)}: "
                    f"{_describe(parser, self._messages)}",
                    _REPORT,
                )
        return bool(parser.parse_model_proto())

    def _make_builder(self) -> Any:
        try:
            return self._trt.Builder(self._logger)
        except (TypeError, RuntimeError) as error:  # the bindings' way to say that they got nothing
            raise PlanBuildError(
                f"TensorRT does not start: {self._messages.first()}", "Check the driver with `nvidia-smi`"
            ) from error

    def _refuse_dynamic(self, network: Any) -> None:
        for tensor in _borders(network):
            if any(size < 0 for size in tensor.shape):
                names = [tensor.get_dimension_name(axis) or size for axis, size in enumerate(tensor.shape)]
                raise PlanBuildError(
                    f"{tensor.name} of {self._name} is {names}, but plans have static shapes",
                    "Give every symbolic dimension a value",
                )

    def _channels_last_format(self, tensor: Any) -> Any:
        trt = self._trt
        # Both are dense [height, width, channels]: HWC8 only asks for a multiple of 8 channels. Each is refused in the
        # other's type.
        return trt.TensorFormat.HWC8 if tensor.dtype == trt.DataType.HALF else trt.TensorFormat.HWC

    def _configure(self, builder: Any, options: PlanOptions) -> Any:
        trt = self._trt
        config = builder.create_builder_config()
        config.progress_monitor = self._monitor
        # A bundle in float32 is computed in float32: TF32 keeps 10 bits of a product's operands.
        config.clear_flag(trt.BuilderFlag.TF32)
        if options.refittable:
            # REFIT_IDENTICAL is undefined with other weights than those of the build, and styles are other weights.
            config.set_flag(trt.BuilderFlag.REFIT)
        if options.detailed:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if self._flavour.is_rtx:
            config.num_compute_capabilities = 1
            target = _rtx_capability(trt, build_target(options.target))
            if not config.set_compute_capability(target, 0):
                raise PlanBuildError(f"TensorRT can't build {self._name} for {target}", _REPORT)
        return config


def _borders(network: Any) -> list[Any]:
    """Return the inputs and outputs of a network."""
    return [
        *(network.get_input(index) for index in range(network.num_inputs)),
        *(network.get_output(index) for index in range(network.num_outputs)),
    ]


def _rtx_capability(trt: Any, target: ComputeCapability) -> Any:
    return {
        (7, 5): trt.ComputeCapability.SM75,
        (8, 0): trt.ComputeCapability.SM80,
        (8, 6): trt.ComputeCapability.SM86,
        (8, 9): trt.ComputeCapability.SM89,
        (12, 0): trt.ComputeCapability.SM120,
        (12, 1): trt.ComputeCapability.SM121,
    }[target]


def _describe(parser: Any, messages: LogMessages) -> str:
    """Return everything the parser found, with the nodes it found it in, and what its log said first."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join([*map(_describe_error, errors), messages.first()])


def _describe_error(error: Any) -> str:
    place = f" in node {error.node_name() or error.node()} ({error.node_operator()})" if error.node() >= 0 else ""
    return _one_line(error.desc()) + place


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
