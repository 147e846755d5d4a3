"""Opens the backend that options are of; only that one's packages are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.stream_rows import StreamRoom

BackendOptions = OnnxRuntimeOptions | TensorRTOptions


def open_bundle(folder: str | Path, options: BackendOptions) -> Bundle:
    """Open a bundle, and verify what its backend will read: raises as ``Bundle.open`` does."""
    # Plans carry the weights already: of the bundle they need the tokenizer alone.
    return Bundle.open(folder, (TOKENIZER_FILE,) if isinstance(options, TensorRTOptions) else None)


@contextmanager
def tensorrt_packages() -> Iterator[None]:
    """Import what needs TensorRT's packages; raise BackendError where one is not installed."""
    try:
        yield
    except ImportError as error:
        raise BackendError(
            f"TensorRT's runtime needs a package that is not installed ({error})",
            "Install it with `pip install live2diff-trt[tensorrt-rtx]`",
        ) from error


def open_pipeline(
    bundle: Bundle,
    spec: StreamSpec,
    options: BackendOptions,
    seed: int,
    guidance: Guidance = NO_GUIDANCE,
    *,
    room: StreamRoom,
) -> Pipeline:
    """Open a bundle on a backend, ready for the first frame but for the prompt.

    Raises:
        BackendError: if the backend is not installed, or can't work on this machine.
    """
    if isinstance(options, TensorRTOptions):
        with tensorrt_packages():
            from live2diff_trt.runtime.cuda_session import open_cuda_pipeline
        return open_cuda_pipeline(bundle, spec, options, seed, guidance, room=room)
    from live2diff_trt.runtime.host_pipeline import HostPipeline

    return HostPipeline(bundle, spec, options, seed, guidance, room=room)
