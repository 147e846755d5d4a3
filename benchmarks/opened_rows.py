"""Every row of a point, opened in one process: the same stream by PyTorch, by ONNX Runtime and by TensorRT."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from live2diff_trt.benchmarks.bench_frame import MOST_ERROR, compute_pictures, find_error
from live2diff_trt.benchmarks.bench_unet import in_full_float32, release_memory
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import (
    ONNX_ROW,
    TENSORRT_ROWS,
    Label,
    choose_builders,
    label_of,
    onnxruntime_options,
    tensorrt_options,
)
from live2diff_trt.benchmarks.torch_networks import TorchNetworks
from live2diff_trt.benchmarks.torch_pipeline import TorchPipeline
from live2diff_trt.benchmarks.unet_cases import HostUNetCase, SessionUNetCase, TorchUNetCase, UNetCase
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.cuda_session import open_cuda_pipeline
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.host_pipeline import HostPipeline
from live2diff_trt.runtime.onnx_network import OnnxNetwork
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stream_rows import StreamRoom

logger = logging.getLogger(__name__)

SEED = 0


@dataclass(frozen=True)
class Place:
    """Where a point's bundle and plans lie, and what this machine has.

    Attributes:
        bundle: its folder.
        plans: root of the plan store; None: the user's cache.
        gpu: None where there is none.
        kept: folder for the UNet's weights in PyTorch's own format; None: they are made anew.
    """

    bundle: Path
    plans: Path | None
    gpu: Gpu | None
    kept: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where PyTorch computes."""
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


class OpenedRows:
    """The rows of a point. What is asked for is opened then, and closed with all others.

    Args:
        point: what is streamed.
        place: where its bundle lies.
        rows: that can run here.

    Attributes:
        networks: of PyTorch, for its rows and for what all are checked against.
    """

    def __init__(self, point: Point, place: Place, rows: Sequence[str]) -> None:
        self._point = point
        self._place = place
        self._rows = rows
        self._bundle = Bundle.open(place.bundle, ())
        self._spec = self._bundle.spec.with_step_list(point.step_list)
        self._stack = ExitStack()
        self._pipelines: dict[str, Pipeline] = {}
        self.networks = TorchNetworks.build(point, place.device, place.kept)

    @contextmanager
    def opened(self) -> Iterator[OpenedRows]:
        """Close everything at the end."""
        with self._stack:
            yield self

    def pipelines(self) -> dict[Label, Pipeline]:
        """Return every row's stream."""
        return {self._label(row): self._pipeline(row) for row in self._rows}

    def unet_cases(self) -> dict[Label, UNetCase]:
        """Return every row's UNet. Rows that differ outside the UNet alone are one."""
        cases: dict[Label, UNetCase] = {}
        builders = choose_builders(self._rows)
        for row in self._rows:
            pipeline = self._pipeline(row)
            if isinstance(pipeline, TorchPipeline):
                cases[self._label(row)] = TorchUNetCase(pipeline, captured=row != "torch-eager")
            elif isinstance(pipeline, CudaPipeline):
                if row in builders:
                    cases[self._label(row)] = SessionUNetCase(pipeline.parts.unet, self._spec)
            else:
                graphs = OnnxGraphs(self._bundle.folder, self._bundle.manifest.signatures, self._onnx_options())
                cases[self._label(row)] = HostUNetCase(OnnxNetwork(graphs, self._spec), self._spec)
        return cases

    def check_pictures(self, results: ResultsFile) -> dict[Label, float]:
        """Return how far each row's pictures are from those of float32; why others are not timed goes into ``not_run``.

        PyTorch's rows draw noise of their own while they are timed; what is checked has the stream's.
        """
        wanted = self._compute_wanted()
        errors: dict[Label, float] = {}
        for label, pipeline in self.pipelines().items():
            error = find_error(self._compute_pictures(pipeline), wanted)
            if error <= MOST_ERROR:
                errors[label] = error
            else:
                name = f"frame of {' '.join(filter(None, label))} at {self._point.name}"
                results.not_run[name] = f"its pictures are off by {error:.1e} of float32's"
        return errors

    def _compute_wanted(self) -> list[Image]:
        """Return what the network in float32 makes of the first frames."""
        exact = self._spec.with_dtype("float32")
        with in_full_float32():
            pipeline = TorchPipeline(self.networks.in_float32(), exact, PromptTokenizer(self._bundle))
            pictures = self._compute_pictures(pipeline)
        pipeline.close()
        release_memory()
        return pictures

    def _compute_pictures(self, pipeline: Pipeline) -> list[Image]:
        if not isinstance(pipeline, TorchPipeline):
            return compute_pictures(pipeline)
        pipeline.set_seed(SEED)
        try:
            return compute_pictures(pipeline)
        finally:
            pipeline.noise_source = None

    def _pipeline(self, row: str) -> Pipeline:
        """Return a row's stream, opened once."""
        if row not in self._pipelines:
            began = time.perf_counter()
            pipeline = self._pipelines[row] = self._open(row)
            self._stack.callback(pipeline.close)
            logger.info("%s was opened in %.1f s", row, time.perf_counter() - began)
        return self._pipelines[row]

    def _open(self, row: str) -> Pipeline:
        if row in TENSORRT_ROWS:
            options = tensorrt_options(row, self._place.plans)
            return open_cuda_pipeline(self._bundle, self._spec, options, SEED, room=StreamRoom(self._spec.steps))
        if row == ONNX_ROW:
            steps = self._spec.steps
            return HostPipeline(self._bundle, self._spec, self._onnx_options(), SEED, room=StreamRoom(steps))
        pipeline = TorchPipeline(self.networks, self._spec, PromptTokenizer(self._bundle))
        if row == "torch-compile":
            pipeline.compile()
        if row != "torch-eager":
            pipeline.capture()
        return pipeline

    def _onnx_options(self) -> OnnxRuntimeOptions:
        return onnxruntime_options(self._place.gpu)

    def _label(self, row: str) -> Label:
        return label_of(row, self._place.gpu)
