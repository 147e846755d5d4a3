"""Replays one recording on one backend."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from live2diff_trt.bundle.spec import FloatName, StreamSpec
from live2diff_trt.conformance.goldens import Goldens, Recording
from live2diff_trt.conformance.replay import Replay, replay_closed_loop, replay_open_loop
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.network import Network

BackendName = Literal["torch", "onnxruntime", "tensorrt"]


@dataclass(frozen=True)
class ConformanceReport:
    """What a replay found.

    Attributes:
        steps: T. backend: who computed. tolerance: the largest error that passes.
        open_loop: recorded UNet inputs each tick, caches ours.
        closed_loop: only latents, depth latents and noises recorded.
    """

    steps: int
    backend: BackendName
    tolerance: float
    open_loop: Replay
    closed_loop: Replay

    @property
    def passed(self) -> bool:
        """Whether the worst error of both loops is within the tolerance."""
        return max(self.open_loop.worst.error, self.closed_loop.worst.error) <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; an infinite error is the string ``inf``."""
        loops = {"open_loop": self.open_loop, "closed_loop": self.closed_loop}
        return {
            "steps": self.steps,
            "backend": self.backend,
            "tolerance": self.tolerance,
            "passed": self.passed,
            **{
                name: {
                    "worst_error": _finite_or_inf(replay.worst.error),
                    "worst_tensor": replay.worst.tensor,
                    "worst_relative_error": _finite_or_inf(replay.worst_relative.relative),
                    "compared": len(replay.deviations),
                }
                for name, replay in loops.items()
            },
        }


def _finite_or_inf(error: float) -> float | str:
    return error if error < float("inf") else "inf"


def run_conformance(
    folder: Path,
    steps: int,
    backend: BackendName,
    tolerance: float,
    *,
    dtype: FloatName = "float32",
    options: TensorRTOptions | None = None,
) -> ConformanceReport:
    """Replay ``folder``'s recording of T = ``steps``.

    Args:
        folder: of goldens.
        steps: T.
        backend: who computes.
        tolerance: largest error that passes.
        dtype: of weights, latents and caches; only TensorRT takes float16.
        options: of TensorRT; its plans are built for the occasion.

    Raises:
        GoldensError: if the folder or the recording can't be read.
        WeightsError: if its weights do not fit its configuration.
    """
    goldens = Goldens.open(folder)
    recording = goldens.recording(steps)
    spec = describe_recording(goldens, recording).with_dtype(dtype)
    with _open_network(backend, goldens, spec, options or TensorRTOptions()) as network:
        return ConformanceReport(
            steps,
            backend,
            tolerance,
            replay_open_loop(spec, network, recording),
            replay_closed_loop(spec, network, recording),
        )


def describe_recording(goldens: Goldens, recording: Recording) -> StreamSpec:
    """Return the stream that was recorded, in float32. Depth is recorded as latents, so it has no depth size."""
    from live2diff_trt.model.stream_spec import describe_network

    height, width = goldens.latent_size
    return StreamSpec(
        width=width * 8,
        height=height * 8,
        step_list=recording.step_list,
        dtype="float32",
        prompt_tokens=recording.prompt_embeddings.shape[1],
        depth_size=0,
        schedule=goldens.schedule,
        **describe_network(goldens.configuration, height, width),
    )


@contextmanager
def _open_network(
    backend: BackendName, goldens: Goldens, spec: StreamSpec, options: TensorRTOptions
) -> Iterator[Network]:
    from live2diff_trt.model.weights import load_unet

    unet = load_unet(goldens.configuration, goldens.weights())
    if backend == "tensorrt":
        from live2diff_trt.conformance.tensorrt_network import build_recorded_plans, open_tensorrt_network

        with tempfile.TemporaryDirectory(prefix="live2diff-conformance-") as scratch:
            stored = build_recorded_plans(Path(scratch), unet, spec, options)
            with open_tensorrt_network(stored, spec, options) as network:
                yield network
        return
    if backend == "torch":
        from live2diff_trt.conformance.torch_network import TorchNetwork

        yield TorchNetwork(unet)
        return

    from live2diff_trt.bundle.signature import bundle_signatures
    from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
    from live2diff_trt.export.unet_graphs import write_unet_graphs
    from live2diff_trt.runtime.onnx_network import OnnxNetwork

    with tempfile.TemporaryDirectory(prefix="live2diff-conformance-") as scratch:
        write_unet_graphs(Path(scratch), unet, spec)
        del unet  # ONNX Runtime holds its own copy of the weights
        # The graphs are closed before the folder is removed whose files they map: Windows would not remove those.
        with closing(
            OnnxNetwork(OnnxGraphs(Path(scratch), bundle_signatures(spec), OnnxRuntimeOptions()), spec)
        ) as onnx_network:
            yield onnx_network
