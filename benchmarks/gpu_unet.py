"""The UNet's tick on a GPU, side by side in one process: PyTorch's best rows and TensorRT's forms, same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from cuda.core import Stream

from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import Case, CudaCoreClock, TorchClock, interleave
from live2diff_trt.benchmarks.torch_tick import TorchTick, build_reference_unet
from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.deviation import relative_error
from live2diff_trt.export.presets import Preset
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.runtime.device_ring import SIDES
from live2diff_trt.runtime.kv_ring import Array, KeyValues
from live2diff_trt.runtime.kv_window import KvWindow
from live2diff_trt.runtime.tick_graphs import capture_work
from live2diff_trt.runtime.tick_record import write_rows
from live2diff_trt.runtime.unet_session import UNetSession

STREAMED = 20
"""Frames that every row is taken to have seen: the window is full and rolling."""


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


def time_unet_ticks(
    results: ResultsFile, preset: Preset, seed: int, sessions: Mapping[str, UNetSession], *, samples: int
) -> None:
    """Time one tick of every backend in turns, and check each against PyTorch in float32 first.

    Args:
        results: gets an entry ``unet_tick`` per backend and form.
        preset: of the bundle that the sessions' plans were built from. seed: of its random weights.
        sessions: form → the UNet opened in that form.
        samples: ticks of each that count.
    """
    spec = preset.spec()
    device = torch.device("cuda", torch.cuda.current_device())
    torch_rows = _open_torch_rows(preset, seed, spec, device)
    inputs = _draw_inputs(spec, next(iter(torch_rows.values())))
    wanted = _compute_in_float32(preset, seed, spec, inputs, device)
    with ExitStack() as stack:
        cases: dict[str, Case] = {}
        errors: dict[str, float] = {}
        for name, tick in torch_rows.items():
            _load_torch(tick, spec, inputs)
            replay = _prepare_torch(name, tick)
            replay()
            torch.cuda.synchronize()
            errors[name] = _worst_row(tick.model_output.float().cpu().numpy(), wanted)
            cases[name] = Case(replay, TorchClock())
        for form, session in sessions.items():
            _load_session(session, spec, inputs)
            replay = capture_replay(session, session.unet.tick, stack)
            replay()
            errors[form] = _worst_row(session.memory.download(session.unet.tick_rows.model_output), wanted)
            cases[form] = Case(replay, CudaCoreClock(session.memory.stream))
        for name, samples_ms in interleave(cases, samples=samples).items():
            plan_form = None if name in torch_rows else name
            backend = "tensorrt-rtx" if plan_form else name
            results.add_samples("unet_tick", backend, plan_form, spec, samples_ms, errors[name])


def capture_replay(session: UNetSession, work: Callable[[Stream], None], stack: ExitStack) -> Callable[[], None]:
    """Capture any work on a stream into a graph, closed with the stack; return its replay on the session's stream."""
    graph = capture_work(session.memory, work)
    stack.callback(graph.close)
    return lambda: graph.launch(session.memory.stream)


def _open_torch_rows(preset: Preset, seed: int, spec: StreamSpec, device: torch.device) -> dict[str, TorchTick]:
    unet = build_reference_unet(preset, seed, getattr(torch, spec.dtype), device)
    # Of the two forms of attention, products are the faster one in every row (27.2 against 28.0 ms in a graph, 11.9
    # against 20.6 compiled, on an H200 at the base point).
    return {
        name: TorchTick(unet, spec, device, attend="products")
        for name in ("torch-eager", "torch-graph", "torch-compile")
    }


def _prepare_torch(name: str, tick: TorchTick) -> Callable[[], None]:
    if name == "torch-eager":
        return tick.step
    if name == "torch-compile":
        tick.compile()
    return tick.capture()


def _draw_inputs(spec: StreamSpec, tick: TorchTick) -> TickInputs:
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


def _load_torch(tick: TorchTick, spec: StreamSpec, inputs: TickInputs) -> None:
    tick.fill_random_past(0, STREAMED)
    dtype = getattr(torch, spec.dtype)
    for place, pair in inputs.past.items():
        for target, values in zip(tick.past[place], pair, strict=True):
            target.copy_(torch.from_numpy(values).to(dtype))
    tick.set_steps(make_step_table(spec.step_list, spec.schedule).timesteps)
    tick.set_prompt(inputs.text_embeddings)
    tick.load(inputs.sample, inputs.depth_features)


def _compute_in_float32(preset: Preset, seed: int, spec: StreamSpec, inputs: TickInputs, device: torch.device) -> Array:
    """Return what the network gives in float32, from weights in the stream's dtype: [rows, channels, height, width]."""
    exact = spec.with_dtype("float32")
    unet = build_reference_unet(preset, seed, getattr(torch, spec.dtype), device).float()
    tick = TorchTick(unet, exact, device, attend="products", channels_last=False)
    in_float32 = TickInputs(
        inputs.sample.astype(np.float32),
        inputs.depth_features.astype(np.float32),
        inputs.text_embeddings.astype(np.float32),
        {place: (k.astype(np.float32), v.astype(np.float32)) for place, (k, v) in inputs.past.items()},
    )
    _load_torch(tick, exact, in_float32)
    tick.step()
    return tick.model_output.cpu().numpy()


def _load_session(session: UNetSession, spec: StreamSpec, inputs: TickInputs) -> None:
    memory, rows = session.memory, session.unet.tick_rows
    for place, pair in inputs.past.items():
        for side, values in zip(SIDES, pair, strict=True):
            past = session.ring.past(side, place)
            for row, block in enumerate(values):
                memory.upload(past.row(row), block)
    session.conditions.set_text_embeddings(inputs.text_embeddings)
    for row in range(spec.steps):
        memory.upload(rows.sample.row(row), inputs.sample[row])
        memory.upload(rows.depth_features.row(row), inputs.depth_features[row])
    load_window(session, spec)


def load_window(session: UNetSession, spec: StreamSpec) -> None:
    """Upload the parameters of a tick whose every row holds a frame and has seen ``STREAMED`` others."""
    window = KvWindow(spec.steps, spec.window, spec.sink)
    for _ in range(STREAMED):
        window.advance([True] * spec.steps)
    parameters = np.zeros(1, TICK_PARAMETERS)
    write_rows(parameters, list(range(spec.steps)), window.view())
    for copy in (session.constants.pending_parameters, session.constants.parameters):
        session.memory.upload(copy, parameters.view(np.uint8))


def _worst_row(found: Array, wanted: Array) -> float:
    return max(relative_error(one, other) for one, other in zip(found, wanted, strict=True))
