"""A held-out clip in a style: what was wanted, what the network makes of it, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from live2diff_trt.bundle.noise import Purpose, standard_normal
from live2diff_trt.evaluation.optical_flow import Motion, follow_motion
from live2diff_trt.evaluation.picture_quality import find_psnr_db, find_ssim
from live2diff_trt.evaluation.warp_error import find_warp_error
from live2diff_trt.training.clip_attention import Sight, see_clip
from live2diff_trt.training.clip_pass import EncodedClips, denoise_clips, place_steps
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.networks import SINK, WINDOW, Networks
from live2diff_trt.training.pictures import to_frames, to_tensor
from live2diff_trt.training.styles import Style


@dataclass(frozen=True)
class Quality:
    """Means over the streamed frames of a clip.

    Attributes:
        psnr_db, ssim: likeness to the style's filter.
        flicker: warp error along the input's motion: squared difference of values in [0, 1].
    """

    psnr_db: float
    ssim: float
    flicker: float


@torch.inference_mode()
def encode_clip(networks: Networks, frames: Frames) -> EncodedClips:
    """Return what the UNet sees of a clip, whatever the style; its first 8 frames are the warm-up."""
    device = next(networks.autoencoder.parameters()).device
    return networks.prepare((to_tensor(frames, device) * 2 - 1)[None])


@torch.inference_mode()
def make_styled(
    networks: Networks,
    clip: EncodedClips,
    style: Style,
    step_list: Sequence[int],
    sight: Sight = "cache",
    seed: int = 0,
) -> Frames:
    """Return a clip as the stream gives it, uint8 [frames, height, width, 3]; noise is the stream's own."""
    view = see_clip(len(clip.latents), WINDOW, SINK, sight).to(clip.latents.device)
    noise = torch.stack([_draw_noise(clip.latents, step, seed) for step in range(len(step_list))])
    steps = place_steps(step_list, clip.latents.device)
    embeddings = networks.embed_prompts([style.prompt])
    *_, clean = denoise_clips(networks.unet, clip, embeddings, view, steps, noise)
    return to_frames(networks.decode(clean) / 2 + 0.5)


def make_wanted(frames: Frames, style: Style) -> Frames:
    """Return what the style's filter makes of a clip, uint8 of the same shape."""
    return to_frames(style.apply(to_tensor(frames, torch.device("cpu"))))


def follow_clip(frames: Frames) -> list[Motion]:
    """Return the motion from each frame to the next."""
    return [follow_motion(frame, later) for frame, later in pairwise(frames)]


def find_quality(found: Frames, wanted: Frames, motions: Sequence[Motion]) -> Quality:
    """Compare a clip, without its warm-up frames, with what was wanted; ``motions`` are those of its input."""
    streamed = range(SINK, len(found))
    errors = [find_warp_error(found[index - 1], found[index], motions[index - 1]) for index in streamed[1:]]
    return Quality(
        psnr_db=float(np.mean([find_psnr_db(found[index], wanted[index]) for index in streamed])),
        ssim=float(np.mean([find_ssim(found[index], wanted[index]) for index in streamed])),
        flicker=float(np.mean([error for error in errors if error is not None])),
    )


def _draw_noise(latents: Tensor, step: int, seed: int) -> Tensor:
    """Return each frame's noise at a step, of the latents' shape, as ``runtime/denoiser.py`` draws it."""
    streamed = Purpose.ENTER if step == 0 else Purpose.RENOISE
    draws = [
        standard_normal(tuple(latents.shape[1:]), seed, frame, step, Purpose.WARM_UP if frame < SINK else streamed)
        for frame in range(len(latents))
    ]
    return torch.from_numpy(np.stack(draws)).to(latents.device)
