"""Structure maps as the stream makes them from frames: estimated, scaled to [−1, 1], resized."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from live2diff_trt.export.depth import depth_size
from live2diff_trt.training.structure_map import make_structure_map


class FrameStructure(nn.Module):
    """The depth half of ``runtime/stages.py``, on the device."""

    def __init__(self) -> None:
        super().__init__()
        self._network = make_structure_map()

    @torch.no_grad()
    def as_pictures(self, clips: Tensor, warm_up: int) -> Tensor:
        """Return the map of every frame as a grey picture; both [clips, frames, 3, height, width] in [−1, 1], float32.

        Args:
            clips: pictures.
            warm_up: how many of a clip's first frames have maps that are scaled alike; each later one is scaled alone.
        """
        side, size = depth_size("tiny"), clips.shape[3:]
        small = functional.interpolate(clips.flatten(0, 1), (side, side), mode="bilinear")
        with torch.autocast(clips.device.type, enabled=False):
            maps = self._network(small).unflatten(0, clips.shape[:2])
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        if warm_up:
            low[:, :warm_up] = low[:, :warm_up].amin(1, keepdim=True)
            high[:, :warm_up] = high[:, :warm_up].amax(1, keepdim=True)
        spread = high - low
        scaled = torch.where(spread > 0, (maps - low) / spread.clamp(min=1e-12) * 2 - 1, 0.0)
        resized = functional.interpolate(scaled.flatten(0, 1)[:, None], size, mode="bilinear")
        return resized.unflatten(0, clips.shape[:2]).expand(-1, -1, 3, -1, -1)
