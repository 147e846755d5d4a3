"""Pictures as bytes and as tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from live2diff_trt.training.footage import Frames


def to_tensor(frames: Frames, device: torch.device) -> Tensor:
    """Uint8 [frames, height, width, 3] → float32 [frames, 3, height, width] in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).to(device).float() / 255


def to_frames(pictures: Tensor) -> Frames:
    """Float [frames, 3, height, width] in [0, 1] → uint8 [frames, height, width, 3]."""
    return (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
