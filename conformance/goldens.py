"""A folder of goldens: configuration, weights and recorded ticks of the reference network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.bundle.schedule import ScheduleSpec, lcm_timesteps

if TYPE_CHECKING:
    import torch

    from live2diff_trt.model.configuration import UNetConfiguration

FloatArray = NDArray[np.floating[Any]]


class GoldensError(Live2DiffError):
    """A folder of goldens is missing, incomplete or damaged."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What was recorded of one run with T denoising steps. Latents are [channels, height, width], float32.

    Attributes:
        tensors: everything recorded, by the recording's own names.
        step_list: indices into LCM's timesteps.
        ticks: how many ticks were recorded.
    """

    tensors: Mapping[str, NDArray[Any]]
    step_list: tuple[int, ...]
    ticks: int

    @property
    def steps(self) -> int:
        """T."""
        return len(self.step_list)

    @property
    def prompt_embeddings(self) -> FloatArray:
        """[1, tokens, channels]."""
        return self.tensors["prompt_embeds"].astype(np.float32, copy=False)

    def warm_up(self, name: str) -> FloatArray:
        """Return a tensor of warm-up as [frames, channels, height, width]: ``latents``, ``step0.sample``, …."""
        return _frames_first(self.tensors[f"warmup.{name}"])

    def tick(self, tick: int, name: str) -> FloatArray:
        """Return a tensor of a tick as [rows, channels, height, width]: ``sample``, ``renoise``, …."""
        tensor = self.tensors[f"tick{tick:02d}.{name}"]
        return tensor[:, :, 0] if tensor.ndim == 5 else tensor

    def window(self, tick: int, name: str) -> NDArray[Any]:
        """Return ``attn_bias``, ``pe_idx`` ([rows, window]) or ``update_idx`` ([rows]) of a tick."""
        return self.tensors[f"tick{tick:02d}.{name}"]

    def streamed(self, tick: int, name: str) -> FloatArray:
        """Return the frame that entered at a tick, [channels, height, width]: ``latents`` or ``depth_latents``."""
        return self.tensors[f"stream.{name}"][tick, 0]


def _frames_first(tensor: FloatArray) -> FloatArray:
    """[1, channels, frames, height, width] → [frames, channels, height, width]; others are so already."""
    return np.ascontiguousarray(tensor[0].swapaxes(0, 1)) if tensor.ndim == 5 else tensor


@dataclass(frozen=True)
class Goldens:
    """A folder of goldens, opened."""

    folder: Path
    configuration: UNetConfiguration
    schedule: ScheduleSpec
    latent_size: tuple[int, int]

    @classmethod
    def open(cls, folder: str | Path) -> Goldens:
        """Read ``config.json``; raise GoldensError if it is missing or says too little."""
        from live2diff_trt.model.configuration import UNetConfiguration

        folder = Path(folder)
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            scheduler = values["scheduler"]
            return cls(
                folder,
                UNetConfiguration.from_reference(values["unet"], values["unet_additional_kwargs"]),
                ScheduleSpec(
                    train_timesteps=scheduler["num_train_timesteps"],
                    beta_start=scheduler["beta_start"],
                    beta_end=scheduler["beta_end"],
                ),
                (values["hw"][0], values["hw"][1]),
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise GoldensError(
                f"{folder / 'config.json'} can't be read ({error!r})",
                "Name a folder of goldens: config, weights, T*.safetensors",
            ) from error

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the reference's state dict as it was saved."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / "weights.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise GoldensError(
                f"{path} can't be read ({error})", "Record the goldens again, or copy them whole"
            ) from error

    def recording(self, steps: int) -> Recording:
        """Return what was recorded for T = ``steps``; raise GoldensError if that is nothing, or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.folder / f"T{steps}.safetensors"
        try:
            tensors = load_file(path)
            timesteps = tensors["const.sub_timesteps"]
            ticks = len(tensors["stream.latents"])
        except (OSError, SafetensorError, KeyError) as error:
            known = ", ".join(sorted(found.stem for found in self.folder.glob("T*.safetensors"))) or "none"
            raise GoldensError(f"{path} can't be read ({error})", f"Recorded here: {known}") from error
        positions = {int(timestep): index for index, timestep in enumerate(lcm_timesteps(self.schedule))}
        return Recording(tensors, tuple(positions[int(timestep)] for timestep in timesteps), ticks)
