"""A strip of pictures: input frames on top, below them what each prompt makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from live2diff_trt.export.presets import TINY
from live2diff_trt.training.camera import CameraPath, View, film
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.networks import SINK, Networks
from live2diff_trt.training.pictures import to_frames, to_tensor
from live2diff_trt.training.styled_clip import encode_clip, make_styled
from live2diff_trt.training.styles import STYLES

_COLUMNS = 5
_FRAMES = 24
_GAP = 4
"""Pixels of white between two pictures."""


def film_footage(shots: Mapping[str, Frames], names: Sequence[str], width: int, height: int) -> dict[str, Frames]:
    """Return clips of footage under a slowly moving camera, always the same, each uint8 [24, height, width, 3].

    Args:
        shots: footage that is trained on, of any size; the clips are its shots' first frames, or all of one frame.
        names: of the shots that are shown.
        width, height: of the clips.

    Raises:
        TrainingError: if there is no shot of a name.
    """
    missing = [name for name in names if name not in shots]
    if missing:
        raise TrainingError(f"there is no shot {', '.join(missing)}", f"Name some of {', '.join(shots)}")
    clips = {}
    for name in names:
        frames = to_tensor(shots[name][:_FRAMES], torch.device("cpu"))
        source = frames if len(frames) == _FRAMES else frames[:1].expand(_FRAMES, -1, -1, -1)
        path = CameraPath(View(0.95, -0.2, -0.2, 0), View(0.85, 0.2, 0.2, 0), mirrored=False)
        clips[name] = to_frames(film(source[None], [path], width, height)[0])
    return clips


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
