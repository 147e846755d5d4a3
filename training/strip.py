"""A strip of pictures: input frames on top, below them what each prompt makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from live2diff_trt.export.presets import TINY
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.networks import SINK, Networks
from live2diff_trt.training.styled_clip import encode_clip, make_styled
from live2diff_trt.training.styles import STYLES

_COLUMNS = 5
_GAP = 4
"""Pixels of white between two pictures."""


def draw_strip(networks: Networks, shots: Mapping[str, Frames]) -> Frames:
    """Return the strip, uint8 [height, width, 3]: a column for each of up to 5 shots, a row for each style."""
    chosen = [frames for frames in shots.values() if len(frames) > SINK][:_COLUMNS]
    columns = []
    for frames in chosen:
        shown = len(frames) * 3 // 4
        clip = encode_clip(networks, frames[: shown + 1])
        styled = [make_styled(networks, clip, style, TINY.step_list)[-1] for style in STYLES if style.name != "photo"]
        columns.append(_join([frames[shown], *styled], axis=0))
    return _join(columns, axis=1)


def _join(pictures: list[Frames], axis: int) -> Frames:
    """Put pictures of one size under or beside each other, with gaps."""
    gap_shape = list(pictures[0].shape)
    gap_shape[axis] = _GAP
    gap = np.full(gap_shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=axis)
