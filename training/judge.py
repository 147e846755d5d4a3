"""Figures of held-out footage while a network is trained: how like the style's filter it is, in dB."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from live2diff_trt.export.presets import TINY
from live2diff_trt.training.clip_attention import see_clip
from live2diff_trt.training.clip_pass import denoise_clips, place_steps
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.networks import SINK, WINDOW, Networks
from live2diff_trt.training.pictures import to_tensor
from live2diff_trt.training.styles import STYLES


class AutoencoderJudge:
    """PSNR of held-out pictures in every style, there and back."""

    def __init__(self, networks: Networks, shots: Mapping[str, Frames], device: torch.device) -> None:
        self._networks = networks
        self._pictures = torch.cat([to_tensor(shot[:: len(shot) // 2][:2], device) for shot in shots.values()])

    def __call__(self) -> Mapping[str, float]:
        """Return the PSNR of each style, in dB."""
        found = {}
        for style in STYLES:
            wanted = style.apply(self._pictures)
            pictures = self._networks.decode(self._networks.encode(wanted * 2 - 1))
            found[f"{style.name}_db"] = find_psnr_db(pictures, wanted)
        return found


class StyleJudge:
    """PSNR of a held-out clip in every style, at the preset's own steps, over the frames after the warm-up."""

    def __init__(self, networks: Networks, shots: Mapping[str, Frames], frames: int, device: torch.device) -> None:
        self._networks = networks
        longest = max(shots.values(), key=len)
        self._clip = to_tensor(longest[:frames], device)
        self._view = see_clip(len(self._clip), WINDOW, SINK).to(device)

    def __call__(self) -> Mapping[str, float]:
        """Return the PSNR of each style, in dB."""
        found = {}
        encoded = self._networks.prepare((self._clip * 2 - 1)[None])
        generator = torch.Generator().manual_seed(0)
        shape = len(TINY.step_list), *encoded.latents.shape
        noise = torch.randn(shape, generator=generator).to(encoded.latents)
        steps = place_steps(TINY.step_list, encoded.latents.device)
        for style in STYLES:
            embeddings = self._networks.embed_prompts([style.prompt])
            *_, clean = denoise_clips(self._networks.unet, encoded, embeddings, self._view, steps, noise)
            pictures = self._networks.decode(clean[SINK:])
            found[f"{style.name}_db"] = find_psnr_db(pictures, style.apply(self._clip[SINK:]))
        return found


def find_psnr_db(found: Tensor, wanted: Tensor) -> float:
    """Return the PSNR of pictures in [−1, 1] against what was wanted, in [0, 1]."""
    error = (found.clamp(-1, 1) / 2 + 0.5 - wanted).square().mean()
    return float(-10 * error.log10())
