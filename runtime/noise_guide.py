"""Guidance of the rows of one pass on host arrays: where each row's negative noise comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from live2diff_trt.bundle.schedule import StepTable
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.guided_noise import guided_noise, implied_latent, virtual_noise
from live2diff_trt.runtime.kv_ring import Array


@dataclass(frozen=True)
class NoiseGuide:
    """How the noise of a stream's rows is guided.

    Attributes:
        guidance: in effect.
        table: the denoising steps' constants.
    """

    guidance: Guidance
    table: StepTable

    def guide(
        self, sample: Array, model_output: Array, negative_output: Array, origins: Array, steps: list[int]
    ) -> Array:
        """Return the noise that rows are denoised with, float32.

        Args:
            sample: [rows, channels, height, width] float32, what the UNet saw.
            model_output: alike, what it predicted under the prompt.
            negative_output: what it predicted of the first rows under the negative prompt: of all of them, of those at
                a frame's first step, or of none.
            origins: alike, float32, what each row's virtual noise leads back to. Where the kind is initialize, those of
                rows with a negative output change in place.
            steps: of each row, its denoising step.
        """
        if self.guidance.kind == "none":
            return model_output
        levels = self.table.sqrt_alpha[steps], self.table.sqrt_one_minus_alpha[steps]
        if self.guidance.kind == "full":
            negative = negative_output.astype(np.float32)
        else:
            asked = len(negative_output)
            origins[:asked] = implied_latent(
                sample[:asked], negative_output.astype(np.float32), *(values[:asked] for values in levels)
            )
            negative = virtual_noise(sample, origins, *levels)
        return guided_noise(model_output, negative, self.guidance.scale, self.guidance.delta)
