"""A clip through all denoising steps, as the stream takes it there: noised, predicted, noised again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


def denoise_clips(
    unet: CausalUNet,
    clips: EncodedClips,
    text_embeddings: Tensor,
    view: ClipView,
    step_list: Sequence[int],
    noise: Sequence[Tensor],
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
        step_list: indices into LCM's timesteps.
        noise: standard normals for each step, of the latents' shape.
        run_unet: the UNet's forward pass, compiled; None: as it is.
    """
    fold_for_training(unet)
    run_unet = unet if run_unet is None else run_unet
    table = make_step_table(step_list, ScheduleSpec())
    times = unet.embed_time(move(table.timesteps.tolist(), clips.latents.device, torch.int64))
    depth_features = unet.embed_depth(clips.depth_latents)
    prompt = {
        place: (keys.repeat_interleave(len(view.visible), 0), values.repeat_interleave(len(view.visible), 0))
        for place, (keys, values) in unet.embed_prompt(text_embeddings).items()
    }
    attend = ClipAttend(view, unet.configuration.motion_heads)
    clean = clips.latents
    for step in range(len(table.timesteps)):
        time = {place: projections[step : step + 1] for place, projections in times.items()}
        sqrt_alpha, sqrt_one_minus_alpha = float(table.sqrt_alpha[step]), float(table.sqrt_one_minus_alpha[step])
        noised = sqrt_alpha * clean.detach() + sqrt_one_minus_alpha * noise[step]
        sample = noised.contiguous(memory_format=torch.channels_last)  # in one layout always: compiled for it
        model_output = run_unet(sample, depth_features, Conditions(time, prompt, attend)).float()
        predicted = (sample - sqrt_one_minus_alpha * model_output) / sqrt_alpha
        clean = float(table.c_out[step]) * predicted + float(table.c_skip[step]) * sample
        yield clean
