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
    def as_picture(self, frames: Tensor, *, together: bool) -> Tensor:
        """Return the map of every frame as a grey picture; both [frames, 3, height, width] in [−1, 1].

        Args:
            frames: pictures.
            together: scale all maps alike, as warm-up does; else each by itself, as in streaming.
        """
        side = depth_size("tiny")
        maps = self._network(functional.interpolate(frames, (side, side), mode="bilinear"))
        axes = (0, 1, 2) if together else (1, 2)
        low, high = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
        spread = high - low
        scaled = torch.where(spread > 0, (maps - low) / spread.clamp(min=1e-12) * 2 - 1, 0.0)
        resized = functional.interpolate(scaled[:, None], frames.shape[2:], mode="bilinear")
        return resized.expand(-1, 3, -1, -1)
