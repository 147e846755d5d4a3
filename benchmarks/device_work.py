"""What the benchmarks ask of a session on a GPU: its parts one by one, each captured to be replayed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.kv_window import KvWindow
from live2diff_trt.runtime.tick_graphs import Work, capture_work
from live2diff_trt.runtime.tick_record import TickRecord
from live2diff_trt.runtime.unet_session import UNetSession

STREAMED = 20
"""Frames that every row is taken to have seen: the window is full and rolling."""


def capture_replay(session: UNetSession, work: Work, stack: ExitStack) -> Callable[[], None]:
    """Capture any work on a stream into a graph, closed with the stack; return its replay on the session's stream."""
    graph = capture_work(session.memory, work)
    stack.callback(graph.close)
    return lambda: graph.launch(session.memory.stream)


def make_parameters(spec: StreamSpec) -> TickRecord:
    """Return the parameters of a tick whose every row holds a frame and has seen ``STREAMED`` others; no picture."""
    window = KvWindow(spec.steps, spec.window, spec.sink)
    for _ in range(STREAMED):
        window.advance([True] * spec.steps)
    parameters = TickRecord(np.zeros(TICK_PARAMETERS.itemsize, np.uint8))
    parameters.write_rows(list(range(spec.steps)), window.view())
    return parameters


def load_window(session: UNetSession, spec: StreamSpec) -> None:
    """Upload those parameters, to where a frame enters and to where it is denoised."""
    parameters = make_parameters(spec).memory
    for target in (session.constants.pending_parameters, session.constants.parameters):
        session.memory.upload(target, parameters)


def stage_work(pipeline: CudaPipeline) -> dict[str, Work]:
    """Return every part of the tick on the device, by the stage's name."""
    parts = pipeline.parts
    stages, tick = parts.stages, parts.tick
    return {
        "see": stages.see,
        "encode": lambda stream: stages.encode(stream, stages.clean.row(0)),
        "estimate_depth": stages.estimate_depth,
        "embed_depth": lambda stream: stages.embed_depth(stream, stages.depth_features),
        "enter": tick.enter,
        "denoise": lambda stream: _in_turn(stream, tick.take, tick.denoise, tick.move_on),
        "decode": tick.decode,
        "tick": tick.enqueue,
    }


def wait_for_device(pipeline: CudaPipeline) -> None:
    """Wait until all that was enqueued is done."""
    pipeline.parts.lanes.sync()


def _in_turn(stream: Stream, *works: Work) -> None:
    for work in works:
        work(stream)
