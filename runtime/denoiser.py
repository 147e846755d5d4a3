"""The stream batch: T denoising steps as T rows, each another frame, over the ring. From latents to clean latents.

Row 0 holds the newest frame at the noisiest step. After a tick, row i's clean latent is noised again and becomes row
i + 1 of the next; row T − 1 leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from live2diff_trt.bundle.noise import Purpose, standard_normal
from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance
from live2diff_trt.runtime.kv_ring import Array, KvRing
from live2diff_trt.runtime.network import Network
from live2diff_trt.runtime.noise_guide import NoiseGuide
from live2diff_trt.runtime.stream_batch import StreamBatch


class NoiseSource(Protocol):
    """Where noise comes from; every draw has the shape of one latent, float32."""

    def enter(self, frame: int) -> Array:
        """Noise that takes a frame to the first denoising step."""

    def renoise(self, frame: int, row: int) -> Array:
        """Noise that takes a frame's clean latent to denoising step ``row``."""

    def warm_up(self, frame: int, row: int) -> Array:
        """Noise for a warm-up frame at denoising step ``row``."""


@dataclass(frozen=True)
class PhiloxNoise:
    """The stream's own noise: it follows from the seed, the frame and the denoising step."""

    seed: int
    shape: tuple[int, int, int]

    def enter(self, frame: int) -> Array:
        """Noise that takes a frame to the first denoising step."""
        return standard_normal(self.shape, self.seed, frame, 0, Purpose.ENTER)

    def renoise(self, frame: int, row: int) -> Array:
        """Noise that takes a frame's clean latent to denoising step ``row``."""
        return standard_normal(self.shape, self.seed, frame, row, Purpose.RENOISE)

    def warm_up(self, frame: int, row: int) -> Array:
        """Noise for a warm-up frame at denoising step ``row``."""
        return standard_normal(self.shape, self.seed, frame, row, Purpose.WARM_UP)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one pass of the network gave: the noise it saw, and the clean latents that follow.

    Attributes:
        model_output: [rows, channels, height, width], the stream's dtype; before any guidance.
        x0: the same shape, float32.
    """

    model_output: Array
    x0: Array


@dataclass(frozen=True, eq=False)
class Tick:
    """What one tick gave.

    Attributes:
        prediction: of all rows; rows without a real frame hold meaningless values.
        frames: per row, the index of the frame it held, or None.
    """

    prediction: Prediction
    frames: tuple[int | None, ...]

    @property
    def finished(self) -> int | None:
        """Index of the frame that left, if one did; its clean latent is the last row's x0."""
        return self.frames[-1]


class Denoiser:
    """The state of one stream between its autoencoder's two ends: rows, ring, schedule, noise, guidance.

    A frame carries its origin from row to row: the clean latent that its virtual noise leads back to. Rows under a
    negative prompt come behind the T rows of the stream batch; each sees the sample of the row at its step, and has
    kv-caches of its own.
    """

    def __init__(
        self, spec: StreamSpec, network: Network, noise: NoiseSource, guidance: Guidance = NO_GUIDANCE
    ) -> None:
        self._spec = spec
        self._network = network
        self._noise = noise
        self._table = make_step_table(spec.step_list, spec.schedule)
        self._guide = NoiseGuide(guidance, self._table)
        self._unet_rows = [*range(spec.steps), *guidance.negative_steps(spec.steps)]
        self._ring = KvRing(spec, len(self._unet_rows))
        self._sample: Array = np.zeros((spec.steps, *spec.latent_shape), spec.dtype)
        self._depth_features: Array = np.zeros((spec.steps, *spec.depth_features_shape), spec.dtype)
        self._origins: Array = np.zeros(self._sample.shape, np.float32)
        self._batch = StreamBatch(spec.steps)
        network.set_steps(self._table.timesteps[self._unet_rows])

    def set_noise(self, noise: NoiseSource) -> None:
        """Take noise from elsewhere, from the next tick on."""
        self._noise = noise

    def set_guidance(self, guidance: Guidance) -> None:
        """Guide by another scale or delta, from the next tick on; the kind is the one the denoiser was made with."""
        self._guide = NoiseGuide(guidance, self._table)

    @property
    def in_flight(self) -> int:
        """Frames that entered and have not left."""
        return self._batch.in_flight

    def warm_up(self, latents: Array, depth_latents: Array) -> tuple[Prediction, ...]:
        """Denoise the first frames together and fill every row's sink with their keys and values.

        A row under the negative prompt gets its own from the same noised latents, seen under that prompt.

        Args:
            latents: clean latents of frames 0 to sink − 1, [sink, channels, height, width].
            depth_latents: of the same frames, the same shape.

        Returns:
            The prediction of each denoising step; the last one's x0 is the result.
        """
        self.reset()
        depth_features = self._network.embed_depth(depth_latents)
        predictions: list[Prediction] = []
        clean: Array = latents
        origins = latents.astype(np.float32)
        for row in range(self._spec.steps):
            noise = np.stack([self._noise.warm_up(frame, row) for frame in range(len(latents))])
            sample = self._noised(clean, noise, row)
            model_output, new = self._network.warm_up(row, sample, depth_features)
            self._ring.fill_sink(row, new)
            negative_output = self._warm_up_negative(row, sample, depth_features)
            clean = self._predict(sample, model_output, negative_output, origins, [row] * len(sample))
            predictions.append(Prediction(model_output, clean))
        return tuple(predictions)

    def enter(self, frame: int, latent: Array, depth_latent: Array) -> None:
        """Put a frame into row 0. Changes the rows in place.

        Args:
            frame: its index in the stream, from 0, warm-up frames included.
            latent: its clean latent, [channels, height, width].
            depth_latent: its depth map's latent, the same shape.
        """
        self._sample[0] = self._noised(latent, self._noise.enter(frame), row=0)
        self._depth_features[0] = self._network.embed_depth(depth_latent[None])[0]
        self._origins[0] = latent
        self._batch.enter(frame)

    def tick(self) -> Tick:
        """Run every row once, remember the new keys and values, and move each frame one row on, in place."""
        steps, rows = self._spec.steps, self._unet_rows
        outputs, new = self._network.tick(self._sample[rows], self._depth_features[rows], self._ring)
        self._ring.write(new, [self._batch.active[row] for row in rows])
        model_output = outputs[:steps]
        x0 = self._predict(self._sample, model_output, outputs[steps:], self._origins, list(range(steps)))
        result = Tick(Prediction(model_output, x0), tuple(self._batch.frames))
        self._move_rows_on(x0)
        return result

    def reset(self) -> None:
        """Forget every frame, as before warm-up."""
        self._ring.reset()
        self._batch.reset()
        self._sample[:] = 0
        self._depth_features[:] = 0
        self._origins[:] = 0

    def _warm_up_negative(self, step: int, sample: Array, depth_features: Array) -> Array:
        """Run the warm-up frames under the negative prompt, if it has a row at this step; else return no frames."""
        negative_rows = self._unet_rows[self._spec.steps :]
        if step not in negative_rows:
            return sample[:0]
        row = self._spec.steps + negative_rows.index(step)
        output, new = self._network.warm_up(row, sample, depth_features)
        self._ring.fill_sink(row, new)
        return output

    def _noised(self, clean: Array, noise: Array, row: int) -> Array:
        noised = reference.enter(
            clean.astype(np.float32),
            noise,
            self._table.sqrt_alpha[row],
            self._table.sqrt_one_minus_alpha[row],
        )
        return noised.astype(self._spec.dtype)

    def _predict(
        self, sample: Array, model_output: Array, negative_output: Array, origins: Array, steps: list[int]
    ) -> Array:
        """Return rows' clean latents. With the kind initialize, origins of rows at the first step change in place."""
        table = self._table
        constants = (table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out)
        noised = sample.astype(np.float32)
        noise = self._guide.guide(noised, model_output.astype(np.float32), negative_output, origins, steps)
        return reference.lcm_step(noised, noise, *(values[steps] for values in constants))

    def _move_rows_on(self, x0: Array) -> None:
        for row in range(self._spec.steps - 1, 0, -1):
            frame = self._batch.frames[row - 1]
            if frame is not None:
                self._sample[row] = self._noised(x0[row - 1], self._noise.renoise(frame, row), row)
                self._depth_features[row] = self._depth_features[row - 1]
                self._origins[row] = self._origins[row - 1]
        self._batch.advance()
