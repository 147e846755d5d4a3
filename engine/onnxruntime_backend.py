"""Opens the graphs of a bundle with ONNX Runtime. The only file that imports it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.signature import GraphSignature
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_module import import_onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]
ProviderName = Literal["cpu", "cuda"]
_PROVIDERS: dict[ProviderName, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # A bundle in float32 is computed in float32: TF32 keeps 10 bits of a product's operands.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime executes.

    Attributes:
        provider: ``cpu``, or ``cuda`` (needs onnxruntime-gpu); never another than the one asked for.
        threads: threads inside one operator; 0 leaves it to ONNX Runtime: one per physical core.
    """

    provider: ProviderName = "cpu"
    threads: int = 0


class OnnxGraph:
    """One graph of a bundle, ready to run. Inputs and outputs are host arrays, bound by name.

    It keeps nothing of a run, so several threads may run it at once.
    """

    def __init__(
        self, session: Any, signature: GraphSignature, errors: tuple[type[Exception], ...], weights: object = None
    ) -> None:
        self._session = session
        self._weights = weights  # the session may read them where they are
        self._name = signature.name
        self._errors = errors
        self._output_names = [spec.name for spec in signature.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once. Contiguous inputs are read in place on the CPU; outputs are fresh arrays, owned by the caller.

        Raises:
            BackendError: if ONNX Runtime fails, as when memory runs out.
        """
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except self._errors as error:
            raise BackendError(
                f"ONNX Runtime failed in {self._name}: {_first_line(error)}",
                "Free memory, or use a smaller size or fewer steps",
            ) from error
        return dict(zip(self._output_names, outputs, strict=True))


class OnnxGraphs:
    """Opens graphs of a folder: a bundle's, or those that conformance exports.

    It owns what it opened by name: who opens a graph again shares it, weights and all. Several threads may open.

    Args:
        folder: holds graphs and data files.
        signatures: of the graphs.
        options: how they are executed.
        weights: initialiser → values in the place of the data file's, for graphs that have it; they must not be
            written while a graph is in use.
    """

    def __init__(
        self,
        folder: Path,
        signatures: Iterable[GraphSignature],
        options: OnnxRuntimeOptions,
        weights: Mapping[str, Array] | None = None,
    ) -> None:
        self._folder = folder
        self._weights = weights or {}
        self._options = options
        self._runtime = _import_onnxruntime()
        self._errors = _error_classes()
        self._signatures = {signature.name: signature for signature in signatures}
        self._opened: dict[str, OnnxGraph] = {}
        self._opening = Lock()
        self._prepare_provider()

    def open(self, name: str) -> OnnxGraph:
        """Open a graph by its signature's name, or return it if it is open already.

        Raises:
            BundleError: if ONNX Runtime can't read the graph.
            BackendError: if the provider that was asked for does not start.
        """
        with self._opening:
            if name not in self._opened:
                self._opened[name] = self._open_file(self._signatures[name])
            return self._opened[name]

    def open_model(self, model: ModelProto, signature: GraphSignature) -> OnnxGraph:
        """Open a graph that has no file, whose weights are the folder's; raises what ``open`` does.

        ``model`` is adapted to ONNX Runtime in place.
        """
        from live2diff_trt.engine.onnxruntime_graph import adapt_graph

        adapt_graph(model)
        return self._open(model, signature, f"{signature.name} of {self._folder}")

    def _open_file(self, signature: GraphSignature) -> OnnxGraph:
        from live2diff_trt.engine.onnxruntime_graph import read_adapted_graph  # needs onnx, which few commands do

        path = self._folder / signature.file
        return self._open(read_adapted_graph(path), signature, str(path))

    def _open(self, model: ModelProto, signature: GraphSignature, origin: str) -> OnnxGraph:
        options = self._session_options()
        try:
            weights = self._replace_weights(model, options)
            session = self._runtime.InferenceSession(
                model.SerializeToString(), options, providers=[_PROVIDERS[self._options.provider]]
            )
        except self._errors as error:
            raise BundleError(
                f"ONNX Runtime can't open {origin}: {_first_line(error)}",
                "Export the bundle again with `live2diff-trt export`",
            ) from error
        self._refuse_another_provider(session)
        return OnnxGraph(session, signature, self._errors, weights)

    def _replace_weights(self, model: ModelProto, options: Any) -> dict[str, Any]:
        """Let a session take weights from memory, by name; return what it then refers to."""
        from live2diff_trt.engine.onnxruntime_graph import replaceable_weights

        names = sorted(replaceable_weights(model) & self._weights.keys())
        values = {name: self._runtime.OrtValue.ortvalue_from_numpy(_contiguous(self._weights[name])) for name in names}
        if values:
            options.add_external_initializers(list(values), list(values.values()))
        return values

    def _session_options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._options.threads
        options.log_severity_level = 3
        # A bundle is nine sessions, each with threads of its own: those that spin while idle take the cores from the
        # one at work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._folder))
        return options

    def _prepare_provider(self) -> None:
        wanted, _ = _PROVIDERS[self._options.provider]
        if wanted not in self._runtime.get_available_providers():
            raise BackendError(
                f"this ONNX Runtime has no {wanted}",
                "Install the extra onnxruntime-gpu in place of onnxruntime, or use --provider cpu",
            )
        if self._options.provider == "cuda":
            self._runtime.preload_dlls()  # finds the CUDA libraries that came as Python packages

    def _refuse_another_provider(self, session: Any) -> None:
        """ONNX Runtime falls back to the CPU with no more than a line in its log; here that is an error."""
        wanted, _ = _PROVIDERS[self._options.provider]
        if wanted not in session.get_providers():
            raise BackendError(
                f"ONNX Runtime's {wanted} does not start on this machine",
                "Install the CUDA libraries it was built for, or use --provider cpu",
            )


def _import_onnxruntime() -> Any:
    try:
        return import_onnxruntime()
    except ImportError as error:
        raise BackendError(
            f"ONNX Runtime is not installed ({error})",
            "Install it with `pip install live2diff-trt[onnxruntime]`",
        ) from error


def _error_classes() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's own exceptions, one per status code; they have no common base but Exception."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return tuple(found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception))


def _contiguous(values: Array) -> Array:
    """Return an ordinary array: ONNX Runtime takes no memory that is read only, as a mapped file's is."""
    return np.require(values, requirements=("C", "W", "E"))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
