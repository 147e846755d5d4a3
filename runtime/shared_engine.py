"""One bundle, opened once, for many streams: they share what does not change, and each has a ring of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from live2diff_trt.bundle.schedule import check_max_steps
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.backend import BackendOptions, open_bundle, tensorrt_packages
from live2diff_trt.runtime.host_engine import HostEngine
from live2diff_trt.runtime.prompt_blend import PromptBlend
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.styles import NamedStyles


class SharedEngine(Protocol):
    """Opens streams of one bundle on one backend. Its methods may be called by several threads.

    Attributes:
        spec: what a stream begins with.
        max_steps: the largest T that a stream may be changed to.
        styles: names that ``Stream.set_style`` takes, beside None for the bundle's own weights.
        stream_bytes: memory that one more stream takes: what is shared is taken already.
    """

    spec: StreamSpec
    max_steps: int
    styles: tuple[str, ...]
    stream_bytes: int

    def open_stream(self, prompt: str | PromptBlend, seed: int) -> Stream:
        """Open a stream of its own ring, prompt and clock; who opens it closes it.

        Raises:
            ControlError: if the prompt is none.
            DeviceMemoryError: if it does not fit into what is free.
            BackendError, PlanError: after ``close``.
        """

    def free_bytes(self) -> int:
        """Return the memory that is free where streams keep their rings."""

    def turn(self) -> AbstractContextManager[None]:
        """Wait until this stream may compute, and let others wait while the block runs."""

    def close(self) -> None:
        """Let go of what streams share; streams that are open keep it. Closing twice is harmless."""


def open_shared_engine(
    folder: str | Path,
    options: BackendOptions,
    *,
    step_list: tuple[int, ...] | None = None,
    max_steps: int = 1,
    styles: Mapping[str, str | Path] | None = None,
) -> SharedEngine:
    """Open a bundle for many streams, and one stream for a trial, so that what is missing is said now.

    Args:
        folder: of the bundle.
        options: of the backend, and so which one.
        step_list: denoising steps that streams begin with; None: the bundle's own.
        max_steps: the largest T that there is to be room for; that of the step list, if that is larger.
        styles: name → what ``Stream.set_style`` would take. All are read and loaded here, and held in memory once;
            TensorRT's plans that can't be refitted are built here with a style's weights, once.

    Raises:
        BundleError, SpecError, BackendError, PlanStoreError, DeviceMemoryError: as ``Stream.open`` does.
        ControlError, RestyleError, PlanBuildError, PlanError: if a style can't be had.
    """
    bundle = open_bundle(folder, options)
    spec = bundle.spec if step_list is None else bundle.spec.with_step_list(step_list)
    max_steps = max(max_steps, spec.steps)
    check_max_steps(max_steps, spec.steps)
    named = NamedStyles(bundle, styles or {})
    if isinstance(options, TensorRTOptions):
        with tensorrt_packages():
            from live2diff_trt.runtime.cuda_engine import CudaEngine
        return CudaEngine(bundle, spec, options, max_steps, named)
    return HostEngine(bundle, spec, options, max_steps, named)
