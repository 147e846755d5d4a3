"""A clip through all denoising steps, as the stream takes it there: noised, predicted, noised again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from live2diff_trt.bundle.schedule import ScheduleSpec, make_step_table
from live2diff_trt.model.unet import CausalUNet, Conditions
from live2diff_trt.training.clip_attention import ClipAttend, ClipView, fold_for_training
from live2diff_trt.training.compiled import RunUNet
from live2diff_trt.training.host_numbers import move


@dataclass(frozen=True, eq=False)
class EncodedClips:
    """Clips as the UNet sees them. Rows are frames, clip by clip.

    Attributes:
        latents: of the frames as they came, [rows, channels, height, width].
        depth_latents: of their structure maps, the same shape.
    """

    latents: Tensor
    depth_latents: Tensor


class StepTensors(NamedTuple):
    """What ``bundle.schedule.StepTable`` has, on the device: step lists differ in numbers, not in what is launched.

    Attributes:
        timesteps: [steps] int64.
        sqrt_alpha, sqrt_one_minus_alpha, c_skip, c_out: [steps] float32.
    """

    timesteps: Tensor
    sqrt_alpha: Tensor
    sqrt_one_minus_alpha: Tensor
    c_skip: Tensor
    c_out: Tensor


def place_steps(step_list: Sequence[int], device: torch.device) -> StepTensors:
    """Bring the constants of a step list, indices into LCM's timesteps, to a device."""
    table = make_step_table(step_list, ScheduleSpec())
    constants = (table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out)
    timesteps = move(table.timesteps.tolist(), device, torch.int64)
    return StepTensors(timesteps, *(move(constant.tolist(), device) for constant in constants))


def denoise_clips(
    unet: CausalUNet,
    clips: EncodedClips,
    text_embeddings: Tensor,
    view: ClipView,
    steps: StepTensors,
    noise: Tensor,
    run_unet: RunUNet | None = None,
) -> Iterator[Tensor]:
    """Yield the clean latents that each denoising step predicts, [rows, channels, height, width].

    All frames of a clip are at one noise level in a step, as they are in a row of the stream, whose kv-cache holds keys
    made at its own level. From step to step no gradient flows: each learns to arrive at the end by itself.

    Args:
        unet: in training or evaluation mode; its position tables are folded anew.
        clips: with as many frames each as ``view`` has.
        text_embeddings: of each clip's prompt, [clips, tokens, channels].
        view: what frames see of each other.
        steps: the constants of a step list.
        noise: standard normals, [steps, *the latents' shape].
        run_unet: the UNet's forward pass, compiled; None: as it is.
    """
    fold_for_training(unet)
    run_unet = unet if run_unet is None else run_unet
    times = unet.embed_time(steps.timesteps)
    depth_features = unet.embed_depth(clips.depth_latents)
    prompt = {
        place: (keys.repeat_interleave(len(view.visible), 0), values.repeat_interleave(len(view.visible), 0))
        for place, (keys, values) in unet.embed_prompt(text_embeddings).items()
    }
    attend = ClipAttend(view, unet.configuration.motion_heads)
    clean = clips.latents
    for step in range(len(noise)):
        time = {place: projections[step : step + 1] for place, projections in times.items()}
        sqrt_alpha, sqrt_one_minus_alpha = steps.sqrt_alpha[step], steps.sqrt_one_minus_alpha[step]
        noised = sqrt_alpha * clean.detach() + sqrt_one_minus_alpha * noise[step]
        sample = noised.contiguous(memory_format=torch.channels_last)  # in one layout always: compiled for it
        model_output = run_unet(sample, depth_features, Conditions(time, prompt, attend)).float()
        predicted = (sample - sqrt_one_minus_alpha * model_output) / sqrt_alpha
        clean = steps.c_out[step] * predicted + steps.c_skip[step] * sample
        yield clean
