"""The stream batch over a network of a few numpy lines: who leaves when, and what a frame depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from live2diff_trt.bundle.noise import Purpose, standard_normal
from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import FloatName, KvCacheSpec, StreamSpec
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise, Prediction, Tick
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.guided_noise import guided_noise, implied_latent, virtual_noise
from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing

STEP_LISTS = {1: (30,), 2: (30, 40), 3: (30, 36, 42), 4: (0, 16, 32, 45), 8: (5, 10, 15, 20, 25, 30, 35, 40)}
SINK = 8
PLACE = "attention"
every_t = pytest.mark.parametrize("steps", STEP_LISTS)
several_t = pytest.mark.parametrize("steps", [1, 2, 4])


def make_spec(steps: int, dtype: FloatName = "float32") -> StreamSpec:
    return StreamSpec(
        width=64,
        height=64,
        step_list=STEP_LISTS[steps],
        dtype=dtype,
        heads=1,
        kv_caches=(KvCacheSpec(PLACE, 4, 8, 8),),
        time_projections=(),
        prompt_kvs=(),
        prompt_tokens=7,
        text_channels=4,
        depth_channels=4,
        depth_size=0,
    )


def as_keys(sample: Array) -> Array:
    """[rows, channels, height, width] → [rows, positions, channels]."""
    return np.ascontiguousarray(sample.reshape(*sample.shape[:2], -1).transpose(0, 2, 1))


@dataclass
class FakeNetwork:
    """Mixes sample, depth and the visible past of each row alone, and writes down what it was given.

    Attributes:
        positive_rows: rows from there on are under a negative prompt, which shifts what they give.
    """

    positive_rows: int = 8
    timesteps: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    samples: list[Array] = field(default_factory=list)
    depth_features: list[Array] = field(default_factory=list)
    warm_ups: list[tuple[int, Array, Array]] = field(default_factory=list)
    sinks: list[Array] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    warm_up_outputs: list[Array] = field(default_factory=list)

    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        self.timesteps = timesteps

    def set_prompt(self, text_embeddings: Array) -> None:
        raise AssertionError("the denoiser knows no prompt")

    def embed_depth(self, depth_latents: Array) -> Array:
        return (2 * depth_latents + 1).astype(depth_latents.dtype)

    def tick(self, sample: Array, depth_features: Array, ring: KvRing) -> tuple[Array, KeyValues]:
        view, (past_k, past_v) = ring.view(), ring.past[PLACE]
        self.samples.append(sample.copy())
        self.depth_features.append(depth_features.copy())
        self.sinks.append(past_k[:, :SINK].copy())
        keys = as_keys(sample) + np.stack([self._shift(row) for row in range(len(sample))])[:, None, None]
        rows = []
        for row in range(len(sample)):
            memory = np.float32(0.1 * view.position[row])
            for slot in np.flatnonzero(view.visible[row]):
                memory += np.float32(0.02 * view.past_position[row, slot]) * past_k[row, slot].mean(dtype=np.float32)
                memory += np.float32(0.01) * past_v[row, slot].max()
            rows.append(self._predict(row, sample[row], depth_features[row], memory))
        self.outputs.append(np.stack(rows))
        return self.outputs[-1], {PLACE: (keys, -keys)}

    def warm_up(self, row: int, sample: Array, depth_features: Array) -> tuple[Array, KeyValues]:
        self.warm_ups.append((row, sample.copy(), depth_features.copy()))
        keys = as_keys(sample) + self._shift(row)
        out = [self._predict(row, one, depth, np.float32(0)) for one, depth in zip(sample, depth_features, strict=True)]
        self.warm_up_outputs.append(np.stack(out))
        return self.warm_up_outputs[-1], {PLACE: (keys, -keys)}

    def _shift(self, row: int) -> np.float32:
        return np.float32(0.3 * (row >= self.positive_rows))

    def _predict(self, row: int, sample: Array, depth: Array, memory: Array | np.float32) -> Array:
        time = np.float32(self.timesteps[row] / 1000)
        mixed = 0.5 * sample + np.float32(0.1) * depth * time + np.tanh(memory) + self._shift(row)
        out: Array = mixed.astype(sample.dtype)
        return out


class Stream:
    """A denoiser with its network, fed with latents that follow from the frame's index."""

    def __init__(
        self, steps: int, seed: int = 0, dtype: FloatName = "float32", guidance: Guidance = NO_GUIDANCE
    ) -> None:
        self.spec = make_spec(steps, dtype)
        self.network = FakeNetwork(steps)
        self.denoiser = Denoiser(self.spec, self.network, PhiloxNoise(seed, self.spec.latent_shape), guidance)

    def latent(self, frame: int) -> Array:
        return np.random.default_rng(frame).standard_normal(self.spec.latent_shape).astype(self.spec.dtype)

    def depth_latent(self, frame: int) -> Array:
        return np.random.default_rng(1000 + frame).standard_normal(self.spec.latent_shape).astype(self.spec.dtype)

    def warm_up(self) -> tuple[Prediction, ...]:
        frames = range(SINK)
        return self.denoiser.warm_up(
            np.stack([self.latent(frame) for frame in frames]), np.stack([self.depth_latent(frame) for frame in frames])
        )

    def tick(self, frame: int | None) -> Tick:
        """One tick, with a new frame or without."""
        if frame is not None:
            self.denoiser.enter(frame, self.latent(frame), self.depth_latent(frame))
        return self.denoiser.tick()

    def run(self, frames: list[int | None]) -> dict[int, Array]:
        """Warm up, then tick; return the clean latents that left, by frame."""
        self.warm_up()
        ticks = [self.tick(frame) for frame in frames]
        return {tick.finished: tick.prediction.x0[-1] for tick in ticks if tick.finished is not None}


def streamed(count: int) -> list[int | None]:
    return list(range(SINK, SINK + count))


@every_t
def test_a_frame_leaves_t_minus_one_ticks_after_it_came(steps: int) -> None:
    stream = Stream(steps)
    stream.warm_up()
    finished = [stream.tick(frame).finished for frame in streamed(12)]
    assert finished == [None] * (steps - 1) + list(range(SINK, SINK + 12 - (steps - 1)))


@every_t
def test_each_row_holds_the_frame_that_came_so_many_ticks_ago(steps: int) -> None:
    stream = Stream(steps)
    stream.warm_up()
    for tick in range(12):
        frames = stream.tick(SINK + tick).frames
        assert frames == tuple(SINK + tick - row if row <= tick else None for row in range(steps))


@every_t
def test_frames_in_flight_are_counted(steps: int) -> None:
    stream = Stream(steps)
    stream.warm_up()
    assert stream.denoiser.in_flight == 0
    for count in range(1, 5):
        stream.denoiser.enter(SINK + count, stream.latent(count), stream.depth_latent(count))
        assert stream.denoiser.in_flight == min(count, steps)
        stream.denoiser.tick()
        assert stream.denoiser.in_flight == min(count, steps - 1)
    for left in range(min(4, steps - 1), 0, -1):
        assert stream.denoiser.in_flight == left
        while stream.denoiser.tick().finished is None:
            assert stream.denoiser.in_flight == left
    assert stream.denoiser.in_flight == 0


@every_t
def test_draining_delivers_every_frame_in_order(steps: int) -> None:
    left = Stream(steps).run(streamed(5) + [None] * (steps - 1))
    assert list(left) == streamed(5)


@every_t
def test_a_frame_is_the_same_whether_others_follow_or_the_stream_is_drained(steps: int) -> None:
    followed = Stream(steps).run(streamed(20))
    drained = Stream(steps).run(streamed(11) + [None] * (steps - 1))
    for frame in range(SINK, SINK + 11):
        np.testing.assert_array_equal(drained[frame], followed[frame])


@several_t
def test_idle_ticks_between_frames_change_nothing(steps: int) -> None:
    straight = Stream(steps).run(streamed(12) + [None] * steps)
    frames: list[int | None] = []
    for frame in streamed(12):
        frames += [frame, *[None] * (int(frame or 0) % 3)]
    halting = Stream(steps).run(frames + [None] * steps)
    assert list(halting) == list(straight)
    for frame_index, x0 in straight.items():
        np.testing.assert_array_equal(halting[frame_index], x0)


@several_t
def test_a_frame_depends_on_the_frames_before_it(steps: int) -> None:
    straight = Stream(steps).run(streamed(6) + [None] * steps)
    skipping = Stream(steps).run([8, 9, 11, 12, 13] + [None] * steps)
    np.testing.assert_array_equal(skipping[9], straight[9])
    assert np.abs(skipping[11] - straight[11]).max() > 1e-4


@several_t
def test_a_row_sees_nothing_of_the_ticks_before_its_first_frame(steps: int) -> None:
    late = Stream(steps).run([None] * 5 + streamed(9) + [None] * steps)
    soon = Stream(steps).run(streamed(9) + [None] * steps)
    for frame, x0 in soon.items():
        np.testing.assert_array_equal(late[frame], x0)


@several_t
def test_noise_belongs_to_the_frame_and_not_to_the_tick(steps: int) -> None:
    stream = Stream(steps, seed=3)
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    stream.warm_up()
    x0: dict[tuple[int, int], Array] = {}
    for tick, frame in enumerate([8, None, 10, 11, None, 12, *[None] * steps]):
        result = stream.tick(frame)
        for row, held in enumerate(result.frames):
            if held is None:
                continue
            clean = stream.latent(held) if row == 0 else x0[held, row - 1]
            purpose = Purpose.ENTER if row == 0 else Purpose.RENOISE
            noise = standard_normal(stream.spec.latent_shape, 3, held, row, purpose)
            wanted = table.sqrt_alpha[row] * clean + table.sqrt_one_minus_alpha[row] * noise
            np.testing.assert_allclose(stream.network.samples[tick][row], wanted, atol=1e-6)
            x0[held, row] = result.prediction.x0[row]
    assert {held for held, _ in x0} == {8, 10, 11, 12}


@several_t
def test_x0_follows_from_sample_and_model_output(steps: int) -> None:
    stream = Stream(steps)
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    stream.warm_up()
    for frame in streamed(6):
        prediction = stream.tick(frame).prediction
        sample = stream.network.samples[-1]
        for row in range(steps):
            denoised = sample[row] - table.sqrt_one_minus_alpha[row] * prediction.model_output[row]
            wanted = table.c_out[row] * denoised / table.sqrt_alpha[row] + table.c_skip[row] * sample[row]
            np.testing.assert_allclose(prediction.x0[row], wanted, atol=1e-5)


@every_t
def test_depth_travels_with_its_frame(steps: int) -> None:
    stream = Stream(steps)
    stream.warm_up()
    for tick, frame in enumerate([8, 9, None, 11, 12, 13, None, None, 16]):
        held = stream.tick(frame).frames
        for row, owner in enumerate(held):
            if owner is not None:
                wanted = 2 * stream.depth_latent(owner) + 1
                np.testing.assert_array_equal(stream.network.depth_features[tick][row], wanted)


@every_t
def test_warm_up_walks_the_steps_and_fills_every_rows_sink(steps: int) -> None:
    stream = Stream(steps, seed=5)
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    predictions = stream.warm_up()
    assert len(predictions) == steps
    assert [row for row, _, _ in stream.network.warm_ups] == list(range(steps))
    clean = np.stack([stream.latent(frame) for frame in range(SINK)])
    depth_features = 2 * np.stack([stream.depth_latent(frame) for frame in range(SINK)]) + 1
    for row, sample, given_depth in stream.network.warm_ups:
        noise = np.stack(
            [standard_normal(stream.spec.latent_shape, 5, frame, row, Purpose.WARM_UP) for frame in range(SINK)]
        )
        wanted = table.sqrt_alpha[row] * clean + table.sqrt_one_minus_alpha[row] * noise
        np.testing.assert_allclose(sample, wanted, atol=1e-6)
        np.testing.assert_array_equal(given_depth, depth_features)
        clean = predictions[row].x0
        denoised = sample - table.sqrt_one_minus_alpha[row] * predictions[row].model_output
        np.testing.assert_allclose(clean, denoised / table.sqrt_alpha[row], atol=1e-5)
    stream.tick(SINK)
    for row, sample, _ in stream.network.warm_ups:
        np.testing.assert_array_equal(stream.network.sinks[0][row], as_keys(sample))


@several_t
def test_the_sinks_stay_for_ever(steps: int) -> None:
    stream = Stream(steps)
    stream.run(streamed(25))
    for sink in stream.network.sinks:
        np.testing.assert_array_equal(sink, stream.network.sinks[0])


@every_t
def test_the_network_is_told_the_timesteps(steps: int) -> None:
    wanted = [999 - 20 * index for index in STEP_LISTS[steps]]
    assert Stream(steps).network.timesteps.tolist() == wanted


@several_t
@pytest.mark.parametrize("explicitly", [True, False])
def test_a_second_clip_equals_the_first_bit_by_bit(steps: int, explicitly: bool) -> None:
    stream = Stream(steps)
    first = stream.run(streamed(13))  # frames are still in flight
    if explicitly:
        stream.denoiser.reset()
        assert stream.denoiser.in_flight == 0
    second = stream.run(streamed(13))
    assert list(second) == list(first)
    for frame, x0 in first.items():
        np.testing.assert_array_equal(second[frame], x0)


@several_t
def test_after_a_reset_nothing_is_left_to_drain(steps: int) -> None:
    stream = Stream(steps)
    stream.run(streamed(5))
    stream.denoiser.reset()
    assert all(stream.tick(None).frames == (None,) * steps for _ in range(steps + 1))


def test_another_seed_gives_other_latents() -> None:
    one, other = Stream(2, seed=0).run(streamed(4)), Stream(2, seed=1).run(streamed(4))
    for frame in one:
        assert np.abs(one[frame] - other[frame]).max() > 1e-2


def test_results_are_the_callers_to_keep() -> None:
    stream = Stream(2)
    stream.warm_up()
    first = stream.tick(8).prediction
    kept = first.x0.copy(), first.model_output.copy()
    stream.tick(9)
    stream.tick(10)
    np.testing.assert_array_equal(first.x0, kept[0])
    np.testing.assert_array_equal(first.model_output, kept[1])


def test_half_precision_streams_hand_the_network_halves_and_return_float32() -> None:
    stream = Stream(2, dtype="float16")
    halves = stream.run(streamed(6))
    assert {sample.dtype for sample in stream.network.samples} == {np.dtype(np.float16)}
    assert {depth.dtype for depth in stream.network.depth_features} == {np.dtype(np.float16)}
    singles = Stream(2).run(streamed(6))
    for frame, x0 in halves.items():
        assert x0.dtype == np.float32
        np.testing.assert_allclose(x0, singles[frame], atol=0.03)


def test_philox_noise_draws_by_purpose() -> None:
    noise = PhiloxNoise(7, (4, 2, 3))
    for drawn, row, purpose in (
        (noise.enter(9), 0, Purpose.ENTER),
        (noise.renoise(9, 2), 2, Purpose.RENOISE),
        (noise.warm_up(9, 1), 1, Purpose.WARM_UP),
    ):
        np.testing.assert_array_equal(drawn, standard_normal((4, 2, 3), 7, 9, row, purpose))


@several_t
def test_without_guidance_the_scale_has_no_effect(steps: int) -> None:
    plain = Stream(steps).run(streamed(6))
    scaled = Stream(steps, guidance=Guidance("none", 7.5)).run(streamed(6))
    for frame, x0 in plain.items():
        np.testing.assert_array_equal(scaled[frame], x0)


@every_t
def test_self_guidance_leads_away_from_the_frame_that_came_in(steps: int) -> None:
    """In every row the origin is the latent of the frame that it holds, and the noise is that of the definition."""
    guidance = Guidance("self", 1.4, delta=0.7)
    stream = Stream(steps, seed=3, guidance=guidance)
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    stream.warm_up()
    for frame in [8, 9, None, 11, 12, 13, None, None, 16]:
        tick = stream.tick(frame)
        sample = stream.network.samples[-1]
        for row, held in enumerate(tick.frames):
            if held is not None:
                of_row = slice(row, row + 1)
                levels = table.sqrt_alpha[of_row], table.sqrt_one_minus_alpha[of_row]
                negative = virtual_noise(sample[of_row], stream.latent(held)[None], *levels)
                noise = guided_noise(tick.prediction.model_output[of_row], negative, 1.4, 0.7)
                wanted = (sample[of_row] - levels[1] * noise) / levels[0]
                np.testing.assert_allclose(tick.prediction.x0[of_row], wanted, atol=2e-5)


@every_t
def test_warm_up_is_guided_too(steps: int) -> None:
    stream = Stream(steps, guidance=Guidance("self", 1.4))
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    predictions = stream.warm_up()
    latents = np.stack([stream.latent(frame) for frame in range(SINK)])
    for row, sample, _ in stream.network.warm_ups:
        levels = (np.repeat(values[row], SINK) for values in (table.sqrt_alpha, table.sqrt_one_minus_alpha))
        noise = guided_noise(predictions[row].model_output, virtual_noise(sample, latents, *levels), 1.4)
        wanted = (sample - table.sqrt_one_minus_alpha[row] * noise) / table.sqrt_alpha[row]
        np.testing.assert_allclose(predictions[row].x0, wanted, atol=2e-5)


@several_t
def test_a_scale_of_one_is_no_guidance(steps: int) -> None:
    plain = Stream(steps).run(streamed(6))
    guided = Stream(steps, guidance=Guidance("self", 1)).run(streamed(6))
    for frame, x0 in plain.items():
        np.testing.assert_allclose(guided[frame], x0, atol=1e-4)


def test_a_scale_of_zero_gives_back_the_frame_that_came_in() -> None:
    stream = Stream(4, guidance=Guidance("self", 0))
    for frame, x0 in stream.run(streamed(6) + [None] * 3).items():
        np.testing.assert_allclose(x0, stream.latent(frame), atol=1e-4)


def test_a_scale_acts_on_the_next_tick_and_on_all_rows() -> None:
    same, changed = (Stream(3, guidance=Guidance("self", 1.1)) for _ in range(2))
    for stream in (same, changed):
        stream.warm_up()
        for frame in streamed(3):
            stream.tick(frame)
    changed.denoiser.set_guidance(Guidance("self", 1.6))
    one, other = same.tick(11).prediction, changed.tick(11).prediction
    np.testing.assert_array_equal(one.model_output, other.model_output)
    assert (np.abs(one.x0 - other.x0).max(axis=(1, 2, 3)) > 1e-3).all()
    assert np.abs(same.tick(12).prediction.model_output - changed.tick(12).prediction.model_output).max() > 1e-3


def under_the_negative_prompt(steps: int) -> Stream:
    stream = Stream(steps)
    stream.network.positive_rows = 0
    return stream


@several_t
def test_full_guidance_of_scale_zero_is_a_stream_under_the_negative_prompt(steps: int) -> None:
    """Bit by bit, so negative rows see samples, sinks and pasts of their own and of nobody else."""
    guided = Stream(steps, guidance=Guidance("full", 0))
    negative = under_the_negative_prompt(steps)
    for wanted, found in zip(negative.warm_up(), guided.warm_up(), strict=True):
        np.testing.assert_array_equal(found.x0, wanted.x0)
    for frame in [8, 9, None, *range(11, 24), None, None]:
        one, other = guided.tick(frame), negative.tick(frame)
        assert one.frames == other.frames
        for row, held in enumerate(one.frames):
            if held is not None:
                np.testing.assert_array_equal(one.prediction.x0[row], other.prediction.x0[row])
        np.testing.assert_array_equal(guided.network.sinks[-1][steps:], negative.network.sinks[-1])


@several_t
def test_full_guidance_runs_a_negative_row_beside_each_row(steps: int) -> None:
    stream = Stream(steps, guidance=Guidance("full", 1.4))
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    stream.warm_up()
    assert stream.network.timesteps.tolist() == [*table.timesteps, *table.timesteps]
    assert [row for row, _, _ in stream.network.warm_ups] == [
        row for step in range(steps) for row in (step, steps + step)
    ]
    for frame in streamed(12):
        prediction = stream.tick(frame).prediction
        sample, output = stream.network.samples[-1], stream.network.outputs[-1]
        np.testing.assert_array_equal(sample[:steps], sample[steps:])
        np.testing.assert_array_equal(prediction.model_output, output[:steps])
        noise = guided_noise(output[:steps], output[steps:], 1.4)
        wanted = implied_latent(sample[:steps], noise, table.sqrt_alpha, table.sqrt_one_minus_alpha)
        np.testing.assert_allclose(prediction.x0, wanted, atol=2e-5)


@every_t
def test_initialize_asks_once_and_the_answer_travels_with_the_frame(steps: int) -> None:
    stream = Stream(steps, guidance=Guidance("initialize", 1.4, delta=0.7))
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    stream.warm_up()
    assert [row for row, _, _ in stream.network.warm_ups] == [0, steps, *range(1, steps)]
    origins: dict[int, Array] = {}
    for frame in [8, 9, None, 11, 12, 13, None, None, 16, *[None] * steps]:
        tick = stream.tick(frame)
        sample, output = stream.network.samples[-1], stream.network.outputs[-1]
        assert len(sample) == steps + 1
        np.testing.assert_array_equal(sample[steps], sample[0])
        for row, held in enumerate(tick.frames):
            if held is None:
                continue
            of_row = slice(row, row + 1)
            levels = table.sqrt_alpha[of_row], table.sqrt_one_minus_alpha[of_row]
            if row == 0:
                origins[held] = implied_latent(sample[:1], output[steps:], *levels)
                negative = output[steps:]
            else:
                negative = virtual_noise(sample[of_row], origins[held], *levels)
            wanted = implied_latent(sample[of_row], guided_noise(output[of_row], negative, 1.4, 0.7), *levels)
            np.testing.assert_allclose(tick.prediction.x0[of_row], wanted, atol=5e-5)
    assert list(origins) == [8, 9, 11, 12, 13, 16]


def test_initialize_guides_the_warm_up_by_the_first_steps_answer() -> None:
    steps = 3
    stream = Stream(steps, guidance=Guidance("initialize", 1.4))
    table = make_step_table(stream.spec.step_list, stream.spec.schedule)
    predictions = stream.warm_up()
    levels = [
        (np.repeat(table.sqrt_alpha[step], SINK), np.repeat(table.sqrt_one_minus_alpha[step], SINK))
        for step in range(steps)
    ]
    samples = [sample for row, sample, _ in stream.network.warm_ups if row < steps]
    origins = implied_latent(samples[0], stream.network.warm_up_outputs[1], *levels[0])
    for step in range(steps):
        negative = virtual_noise(samples[step], origins, *levels[step])
        noise = guided_noise(predictions[step].model_output, negative, 1.4)
        np.testing.assert_allclose(predictions[step].x0, implied_latent(samples[step], noise, *levels[step]), atol=5e-5)
    np.testing.assert_array_equal(as_keys(samples[0])[0] + np.float32(0.3), sink_of_row(stream, steps)[0])


def sink_of_row(stream: Stream, row: int) -> Array:
    """Return the sink that a UNet's row sees, [sink, positions, channels]."""
    stream.tick(SINK)
    return stream.network.sinks[-1][row]


def test_of_one_step_initialize_is_full() -> None:
    full = Stream(1, guidance=Guidance("full", 1.6)).run(streamed(6))
    once = Stream(1, guidance=Guidance("initialize", 1.6)).run(streamed(6))
    for frame, x0 in full.items():
        np.testing.assert_allclose(once[frame], x0, atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "self", "initialize"])
@several_t
def test_guided_frames_do_not_depend_on_idle_ticks_or_on_an_earlier_clip(steps: int, kind: GuidanceKind) -> None:
    stream = Stream(steps, guidance=Guidance(kind, 1.4))
    straight = stream.run(streamed(6) + [None] * steps)
    halting = stream.run([8, None, 9, 10, None, None, 11, 12, 13] + [None] * steps)
    assert list(halting) == list(straight)
    for frame, x0 in straight.items():
        np.testing.assert_array_equal(halting[frame], x0)
