"""Launches what happens to the rows' latents between two passes of the UNet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launcher import THREADS, Launcher, check_element_type, check_rows, check_step, row_arguments
from live2diff_trt.kernels.library import KernelError
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
        check_step(row)
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

        What a row is denoised with is guided as ``model_output`` and ``origins`` say: without more rows and without
        origins not at all; with origins by the kind self, with as many rows more by full, with one more and origins by
        initialize.

        Args:
            stream: where to launch.
            sample: [rows, channels, height, width], a row for each step; rows 1 and later change in place where the row
                before is active. May lie in chunks, and the others too.
            model_output: alike, and behind these rows those under the negative prompt: of every step, of the first one,
                or none.
            x0: as sample, float32; written.
            finished: [channels, height, width], of the sample's dtype: the last row's clean latent; written.
            parameters: the tick's, uint8; with guidance, its scale and delta too.
            step_table: float32 [4, 8].
            origins: as sample, the clean latents that virtual noise leads back to; None: there is none. With initialize
                row 0 is written: the latent that its negative noise implies.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if there is no guidance of such rows and origins.
        """
        dtype = check_element_type("sample", sample)
        rows, latent_shape = check_rows("sample", sample), sample.shape[1:]
        check_step(rows - 1)
        self.check("sample", sample, sample.shape, dtype)
        self.check("model_output", model_output, (check_rows("model_output", model_output), *latent_shape), dtype)
        self.check("x0", x0, sample.shape, "float32")
        self.check_dense("finished", finished, latent_shape, dtype)
        self.check_parameters(parameters)
        self.check_step_table(step_table)
        looked_back_at = self._check_origins(origins, sample)
        kind = _guidance_of(model_output.shape[0] - rows, rows, has_origins=origins is not None)
        elements = math.prod(latent_shape)
        self.launch(
            stream,
            f"lcm_step{kind}_{dtype}",
            (_blocks(elements, _NOISE_BLOCK), 1, 1),
            (THREADS, 1, 1),
            *row_arguments(sample=sample, model_output=model_output, x0=x0, **looked_back_at),
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
        negative_output: DeviceTensor | None = None,
        origins: DeviceTensor | None = None,
    ) -> None:
        """Predict the clean latents of the 8 warm-up frames, all at one row's step.

        They are guided as ``negative_output`` and ``origins`` say: without both not at all; with origins by the kind
        self, with a negative output by full, with both as at the first step of initialize.

        Args:
            stream: where to launch.
            sample: [8, channels, height, width]; may lie in chunks, and the others too.
            model_output: alike.
            x0: alike, float32; written.
            finished: the same values in the sample's dtype; written.
            row: whose step.
            parameters: the tick's, uint8: with guidance, its scale and delta.
            step_table: float32 [4, 8].
            negative_output: alike, what the model gave under the negative prompt; None: it was not asked.
            origins: alike, the clean latents that virtual noise leads back to; None: there is none. With a negative
                output they are written: the latents that it implies.

        Raises:
            DeviceTensorError: if a tensor is something else.
            KernelError: if there is no such step.
        """
        dtype = check_element_type("sample", sample)
        shape = (SINK, *sample.shape[1:])
        check_step(row)
        for name, tensor in {"sample": sample, "model_output": model_output, "finished": finished}.items():
            self.check(name, tensor, shape, dtype)
        self.check("x0", x0, shape, "float32")
        self.check_parameters(parameters)
        self.check_step_table(step_table)
        asked: dict[str, DeviceTensor] = {}
        if negative_output is not None:
            self.check("negative_output", negative_output, shape, dtype)
            asked = {"negative_output": negative_output}
        guides = {**asked, **self._check_origins(origins, sample)}
        kind = _guidance_of(1 if asked else 0, 1, has_origins=origins is not None)
        elements = math.prod(shape[1:])
        self.launch(
            stream,
            f"lcm_step_warm_up{kind}_{dtype}",
            (_blocks(elements, 1), SINK, 1),
            (THREADS, 1, 1),
            *row_arguments(sample=sample, model_output=model_output, x0=x0, finished=finished, **guides),
            *((parameters.address,) if guides else ()),
            step_table.address,
            np.int32(row),
            np.int32(elements),
        )

    def _check_origins(self, origins: DeviceTensor | None, sample: DeviceTensor) -> dict[str, DeviceTensor]:
        """Return the origins as a kernel takes them; nothing where there are none."""
        if origins is None:
            return {}
        self.check("origins", origins, sample.shape, sample.dtype)
        return {"origins": origins}


def _guidance_of(negative_rows: int, rows: int, *, has_origins: bool) -> str:
    """Return the ending of the kernel that guides so many rows; raise KernelError if no kind of guidance has them."""
    if has_origins and negative_rows in (0, 1):
        return "_initialize" if negative_rows else "_self"
    if not has_origins and negative_rows in (0, rows):
        return "_full" if negative_rows else ""
    raise KernelError(
        f"{negative_rows} negative rows of {rows}, with{'' if has_origins else 'out'} origins, are no guidance",
        "Pass none with or without origins, one with origins, or as many without",
    )


def _blocks(elements: int, per_thread: int) -> int:
    return -(-elements // (THREADS * per_thread))
