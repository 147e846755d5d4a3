"""Replays a recording in open loop (recorded inputs each tick) and in closed loop (only what a camera would give)."""

from __future__ import annotations

from dataclasses import dataclass

from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.conformance.goldens import FloatArray, Recording
from live2diff_trt.engine.deviation import deviation, relative_error
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.denoiser import Denoiser
from live2diff_trt.runtime.kv_ring import Array, KvRing
from live2diff_trt.runtime.network import Network


@dataclass(frozen=True)
class Deviation:
    """How far one of our tensors is from the recorded one.

    Attributes:
        error: the largest difference, over the largest recorded value where that is above 1.
        relative: ‖ours − recorded‖₂ / ‖recorded‖₂.
    """

    tensor: str
    error: float
    relative: float


@dataclass(frozen=True)
class Replay:
    """Every comparison of one loop."""

    deviations: tuple[Deviation, ...]

    @property
    def worst(self) -> Deviation:
        """The largest deviation; a NaN counts as infinite."""
        return max(self.deviations, key=lambda deviation: deviation.error)

    @property
    def worst_relative(self) -> Deviation:
        """The deviation with the largest relative error."""
        return max(self.deviations, key=lambda deviation: deviation.relative)


class _Comparison:
    """Gathers deviations."""

    def __init__(self) -> None:
        self.deviations: list[Deviation] = []

    def add(self, tensor: str, ours: Array, recorded: FloatArray) -> None:
        self.deviations.append(Deviation(tensor, deviation(ours, recorded), relative_error(ours, recorded)))

    def finish(self) -> Replay:
        return Replay(tuple(self.deviations))


def replay_open_loop(spec: StreamSpec, network: Network, recording: Recording) -> Replay:
    """Give the UNet the recorded inputs of warm-up and of each tick. The caches are ours."""
    comparison = _Comparison()
    table = make_step_table(spec.step_list, spec.schedule)
    constants = (table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out)
    ring = KvRing(spec)
    network.set_steps(table.timesteps)
    network.set_prompt(recording.prompt_embeddings)

    depth_features = network.embed_depth(recording.warm_up("depth_latents"))
    for row in range(spec.steps):
        sample = recording.warm_up(f"step{row}.sample")
        model_output, new = network.warm_up(row, sample, depth_features)
        ring.fill_sink(row, new)
        comparison.add(f"warmup.step{row}.model_output", model_output, recording.warm_up(f"step{row}.model_output"))
    rows = [spec.steps - 1] * len(sample)
    x0 = reference.lcm_step(sample, model_output, *(values[rows] for values in constants))
    comparison.add("warmup.x0", x0, recording.warm_up("x0"))

    for tick in range(recording.ticks):
        sample = recording.tick(tick, "sample")
        depth_features = network.embed_depth(recording.tick(tick, "depth_sample"))
        model_output, new = network.tick(sample, depth_features, ring)
        active = [row <= tick for row in range(spec.steps)]
        ring.write(new, active)
        _compare_tick(comparison, recording, tick, model_output, reference.lcm_step(sample, model_output, *constants))
    return comparison.finish()


def replay_closed_loop(spec: StreamSpec, network: Network, recording: Recording) -> Replay:
    """Give the denoiser latents, depth latents and noises. Everything between is ours."""
    comparison = _Comparison()
    network.set_prompt(recording.prompt_embeddings)
    denoiser = Denoiser(spec, network, RecordedNoise(recording, spec.sink))

    predictions = denoiser.warm_up(recording.warm_up("latents"), recording.warm_up("depth_latents"))
    for row, prediction in enumerate(predictions):
        recorded = recording.warm_up(f"step{row}.model_output")
        comparison.add(f"warmup.step{row}.model_output", prediction.model_output, recorded)
    comparison.add("warmup.x0", predictions[-1].x0, recording.warm_up("x0"))

    for tick in range(recording.ticks):
        latent, depth_latent = recording.streamed(tick, "latents"), recording.streamed(tick, "depth_latents")
        denoiser.enter(spec.sink + tick, latent, depth_latent)
        prediction = denoiser.tick().prediction
        _compare_tick(comparison, recording, tick, prediction.model_output, prediction.x0)
    return comparison.finish()


def _compare_tick(comparison: _Comparison, recording: Recording, tick: int, model_output: Array, x0: Array) -> None:
    """Compare every row that holds a real frame, and the clean latent that leaves."""
    real = min(tick + 1, recording.steps)
    recorded = recording.tick(tick, "model_output")
    for row in range(real):
        comparison.add(f"tick{tick:02d}.model_output[{row}]", model_output[row], recorded[row])
    if tick >= recording.steps - 1:
        comparison.add(f"tick{tick:02d}.x0", x0[-1], recording.tick(tick, "x0")[-1])


@dataclass(frozen=True, eq=False)
class RecordedNoise:
    """The noises of a recording, as the denoiser asks for them."""

    recording: Recording
    sink: int

    def enter(self, frame: int) -> Array:
        """Noise that took a frame to the first denoising step."""
        return self.recording.tick(frame - self.sink, "encode_noise")[0]

    def renoise(self, frame: int, row: int) -> Array:
        """Noise that took a frame to ``row``: drawn at the end of the tick in which it was in the row before."""
        return self.recording.tick(frame - self.sink + row - 1, "renoise")[row - 1]

    def warm_up(self, frame: int, row: int) -> Array:
        """Noise for a warm-up frame at denoising step ``row``."""
        return self.recording.warm_up("encode_noise" if row == 0 else f"step{row}.renoise")[frame]
