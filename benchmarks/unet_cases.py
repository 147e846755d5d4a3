"""One tick of the UNet by each backend: given the same inputs, ready to be timed, its output to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from live2diff_trt.benchmarks.device_work import STREAMED, capture_replay, load_window
from live2diff_trt.benchmarks.timing import Case, CudaCoreClock, TorchClock, WallClock
from live2diff_trt.benchmarks.torch_pipeline import TorchPipeline
from live2diff_trt.benchmarks.torch_tick import TorchTick
from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.device_ring import SIDES
from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing
from live2diff_trt.runtime.network import Network
from live2diff_trt.runtime.unet_session import UNetSession


@dataclass(frozen=True, eq=False)
class TickInputs:
    """What every backend is given: random, the same for all.

    Attributes:
        sample, depth_features: [rows, channels, height, width].
        text_embeddings: [1, tokens, channels].
        past: each cache, [rows, window, positions, channels].
    """

    sample: Array
    depth_features: Array
    text_embeddings: Array
    past: KeyValues


def draw_inputs(spec: StreamSpec, tick: TorchTick) -> TickInputs:
    """Draw a tick's inputs; the past on the tick's device, because there is much of it. Changes the tick's caches."""
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return generator.standard_normal(shape).astype(spec.dtype)

    tick.fill_random_past(0, STREAMED)
    return TickInputs(
        draw(spec.steps, *spec.latent_shape),
        draw(spec.steps, *spec.depth_features_shape),
        draw(1, spec.prompt_tokens, spec.text_channels),
        tick.past_numpy(),
    )


class UNetCase(Protocol):
    """One backend's tick of the UNet."""

    def load(self, inputs: TickInputs) -> None:
        """Copy a tick's inputs to where the backend reads them."""

    def prepare(self, stack: ExitStack) -> Case:
        """Compile and capture; return what is timed. What has to be closed is pushed onto the stack."""

    def run(self) -> Array:
        """Run what was prepared once, and return the model's output, [rows, channels, height, width]."""


class TorchUNetCase:
    """The UNet of a stream by PyTorch: captured where the stream is, else as it is."""

    def __init__(self, pipeline: TorchPipeline, *, captured: bool) -> None:
        self._pipeline = pipeline
        self._captured = captured
        self._launch: Callable[[], None] = pipeline.tick_of_unet.step

    def load(self, inputs: TickInputs) -> None:
        """Copy a tick's inputs to where the backend reads them."""
        with self._pipeline.on_stream():
            load_torch(self._pipeline.tick_of_unet, self._pipeline.spec, inputs)

    def prepare(self, stack: ExitStack) -> Case:
        """Capture the step, if that is asked for."""
        if self._captured:
            self._launch = self._pipeline.capture_work(self._pipeline.tick_of_unet.step)
        cuda_stream = self._pipeline.cuda_stream
        return Case(self._run, WallClock() if cuda_stream is None else TorchClock(cuda_stream))

    def run(self) -> Array:
        """Run what was prepared once, and return the model's output."""
        self._run()
        with self._pipeline.on_stream():
            return self._pipeline.tick_of_unet.model_output.float().cpu().numpy()

    def _run(self) -> None:
        with self._pipeline.on_stream():
            self._launch()


class SessionUNetCase:
    """The UNet of TensorRT's plans, in either form, as one graph."""

    def __init__(self, session: UNetSession, spec: StreamSpec) -> None:
        self._session = session
        self._spec = spec
        self._launch: Callable[[], None] | None = None

    def load(self, inputs: TickInputs) -> None:
        """Copy a tick's inputs to where the backend reads them."""
        session, rows = self._session, self._session.unet.tick_rows
        for place, pair in inputs.past.items():
            for side, values in zip(SIDES, pair, strict=True):
                past = session.ring.past(side, place)
                for row, block in enumerate(values):
                    session.memory.upload(past.row(row), block)
        session.conditions.set_text_embeddings(inputs.text_embeddings)
        for row in range(self._spec.steps):
            session.memory.upload(rows.sample.row(row), inputs.sample[row])
            session.memory.upload(rows.depth_features.row(row), inputs.depth_features[row])
        load_window(session, self._spec)

    def prepare(self, stack: ExitStack) -> Case:
        """Capture the tick of the UNet."""
        self._launch = capture_replay(self._session, self._session.unet.tick, stack)
        return Case(self._launch, CudaCoreClock(self._session.memory.stream))

    def run(self) -> Array:
        """Run what was prepared once, and return the model's output."""
        if self._launch is not None:
            self._launch()
        return self._session.memory.download(self._session.unet.tick_rows.model_output)


class HostUNetCase:
    """The UNet of a network on host arrays: ONNX Runtime's."""

    def __init__(self, network: Network, spec: StreamSpec) -> None:
        self._network = network
        self._spec = spec
        self._ring = KvRing(spec)
        self._inputs: tuple[Array, Array] | None = None

    def load(self, inputs: TickInputs) -> None:
        """Copy a tick's inputs to where the backend reads them."""
        self._network.set_steps(make_step_table(self._spec.step_list, self._spec.schedule).timesteps)
        self._network.set_prompt(inputs.text_embeddings)
        self._ring.reset()
        for _ in range(STREAMED):
            self._ring.write({}, [True] * self._spec.steps)
        for place, pair in inputs.past.items():
            for past, values in zip(self._ring.past[place], pair, strict=True):
                past[:] = values
        self._inputs = inputs.sample, inputs.depth_features

    def prepare(self, stack: ExitStack) -> Case:
        """Return what is timed: the caches are read, the new slots handed out and not yet written."""
        return Case(self.run, WallClock())

    def run(self) -> Array:
        """Run a tick and return the model's output."""
        assert self._inputs is not None, "load comes first"
        model_output, _ = self._network.tick(*self._inputs, self._ring)
        return model_output


def load_torch(tick: TorchTick, spec: StreamSpec, inputs: TickInputs) -> None:
    """Copy a tick's inputs to the device, in the tick's dtype."""
    tick.fill_random_past(0, STREAMED)
    for place, pair in inputs.past.items():
        for target, values in zip(tick.past[place], pair, strict=True):
            target.copy_(torch.from_numpy(values).to(target.device))
    tick.set_steps(make_step_table(spec.step_list, spec.schedule).timesteps)
    tick.set_prompt(inputs.text_embeddings)
    tick.load(inputs.sample, inputs.depth_features)
