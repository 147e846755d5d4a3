"""Launches what happens to the rows' latents between two passes of the UNet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launcher import THREADS, Launcher, check_element_type, check_row, check_rows, row_arguments
from live2diff_trt.kernels.tick_parameters import SINK

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

_NOISE_BLOCK = 4  # elements that a thread draws noise for


class LatentLauncher(Launcher):
    """Noise, and the step of the latent consistency model. Constants come from a table, float32 [4, 8]."""

    def enter(
        self,
        stream: Stream | GraphBuilder,
        *,
        latent: DeviceTensor,
        sample: DeviceTensor,
        parameters: DeviceTensor,
        step_table: DeviceTensor,
    ) -> None:
        """Noise a clean latent to the first step and put it into row 0, if that row is active. Changes row 0 in place.

        Args:
            stream: where to launch.
            latent: [channels, height, width].
            sample: [rows, channels, height, width]; may lie in chunks.
            parameters: the tick's, uint8.
            step_table: float32 [4, 8].
        """
        dtype = check_element_type("sample", sample)
        self.check("sample", sample, (check_rows("sample", sample), *latent.shape), dtype)
        self.check_dense("latent", latent, latent.shape, dtype)
        self.check_parameters(parameters)
        self.check_step_table(step_table)
        elements = math.prod(latent.shape)
        self.launch(
            stream,
            f"enter_{dtype}",
            (_blocks(elements, _NOISE_BLOCK), 1, 1),
            (THREADS, 1, 1),
            latent.address,
            sample.address,
            parameters.address,
            step_table.address,
            np.int32(elements),
        )

    def enter_warm_up(
        self,
        stream: Stream | GraphBuilder,
        *,
        clean: DeviceTensor,
        sample: DeviceTensor,
        row: int,
        parameters: DeviceTensor,
        step_table: DeviceTensor,
    ) -> None:
        """Noise the 8 warm-up frames' clean latents to a row's step.

        Args:
            stream: where to launch.
            clean: [8, channels, height, width], of the sample's dtype or, as an x0 is, float32; may lie in chunks.
            sample: alike; written.
            row: whose step.
            parameters: the tick's, uint8: the seed.
            step_table: float32 [4, 8].
        """
        dtype = check_element_type("sample", sample)
        latent_shape = sample.shape[1:]
        check_row(row)
        self.check("sample", sample, (SINK, *latent_shape), dtype)
        self.check("clean", clean, (SINK, *latent_shape), clean.dtype if clean.dtype == "float32" else dtype)
        self.check_parameters(parameters)
        self.check_step_table(step_table)
        elements = math.prod(latent_shape)
        self.launch(
            stream,
            f"enter_warm_up_{dtype}" if clean.dtype == dtype else f"enter_warm_up_from_x0_{dtype}",
            (_blocks(elements, _NOISE_BLOCK), SINK, 1),
            (THREADS, 1, 1),
            *row_arguments(clean=clean, sample=sample),
            parameters.address,
            step_table.address,
            np.int32(row),
            np.int32(elements),
        )

    def lcm_step(
        self,
        stream: Stream | GraphBuilder,
        *,
        sample: DeviceTensor,
        model_output: DeviceTensor,
        x0: DeviceTensor,
        finished: DeviceTensor,
        parameters: DeviceTensor,
        step_table: DeviceTensor,
        origins: DeviceTensor | None = None,
    ) -> None:
        """Predict every row's clean latent, and move each active row but the last one on, noised to its next step.

        Args:
            stream: where to launch.
            sample: [rows, channels, height, width]; rows 1 and later change in place where the row before is active.
            model_output: alike.
            x0: alike, float32; written.
            finished: [channels, height, width], of the sample's dtype: the last row's clean latent; written.
            parameters: the tick's, uint8; with origins, the scale and delta of guidance too.
            step_table: float32 [4, 8].
            origins: alike, the clean latents that guidance leads away from; None: no guidance.
        """
        dtype = check_element_type("sample", sample)
        rows, latent_shape = check_rows("sample", sample), sample.shape[1:]
        self.check("sample", sample, sample.shape, dtype)
        self.check("model_output", model_output, sample.shape, dtype)
        self.check("x0", x0, sample.shape, "float32")
        self.check_dense("finished", finished, latent_shape, dtype)
        self.check_parameters(parameters)
        self.check_step_table(step_table)
        guided = self._check_origins(origins, sample)
        elements = math.prod(latent_shape)
        self.launch(
            stream,
            f"lcm_step_guided_{dtype}" if guided else f"lcm_step_{dtype}",
            (_blocks(elements, _NOISE_BLOCK), 1, 1),
            (THREADS, 1, 1),
            *row_arguments(sample=sample, model_output=model_output, x0=x0, **guided),
            finished.address,
            parameters.address,
            step_table.address,
            np.int32(rows),
            np.int32(elements),
        )

    def lcm_step_warm_up(
        self,
        stream: Stream | GraphBuilder,
        *,
        sample: DeviceTensor,
        model_output: DeviceTensor,
        x0: DeviceTensor,
        finished: DeviceTensor,
        row: int,
        parameters: DeviceTensor,
        step_table: DeviceTensor,
        origins: DeviceTensor | None = None,
    ) -> None:
        """Predict the clean latents of the 8 warm-up frames, all at one row's step.

        Args:
            stream: where to launch.
            sample: [8, channels, height, width]; may lie in chunks, and the others too.
            model_output: alike.
            x0: alike, float32; written.
            finished: the same values in the sample's dtype; written.
            row: whose step.
            parameters: the tick's, uint8: with origins, the scale and delta of guidance.
            step_table: float32 [4, 8].
            origins: alike, the clean latents that guidance leads away from; None: no guidance.
        """
        dtype = check_element_type("sample", sample)
        shape = (SINK, *sample.shape[1:])
        check_row(row)
        for name, tensor in {"sample": sample, "model_output": model_output, "finished": finished}.items():
            self.check(name, tensor, shape, dtype)
        self.check("x0", x0, shape, "float32")
        self.check_parameters(parameters)
        self.check_step_table(step_table)
        guided = self._check_origins(origins, sample)
        elements = math.prod(shape[1:])
        self.launch(
            stream,
            f"lcm_step_warm_up_guided_{dtype}" if guided else f"lcm_step_warm_up_{dtype}",
            (_blocks(elements, 1), SINK, 1),
            (THREADS, 1, 1),
            *row_arguments(sample=sample, model_output=model_output, x0=x0, finished=finished, **guided),
            *((parameters.address,) if guided else ()),
            step_table.address,
            np.int32(row),
            np.int32(elements),
        )

    def _check_origins(self, origins: DeviceTensor | None, sample: DeviceTensor) -> dict[str, DeviceTensor]:
        """Return what a guided kernel takes beside what an unguided one does; nothing where there is no guidance."""
        if origins is None:
            return {}
        self.check("origins", origins, sample.shape, sample.dtype)
        return {"origins": origins}


def _blocks(elements: int, per_thread: int) -> int:
    return -(-elements // (THREADS * per_thread))
