"""The host's side of a tick's parameters: integers in, one record out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.kernels.reference import cover_rectangle
from live2diff_trt.runtime.device_image import DevicePicture
from live2diff_trt.runtime.kv_window import WindowView

Record = NDArray[np.void]
"""[1] of TICK_PARAMETERS; functions here write it in place."""


def write_source(record: Record, picture: DevicePicture, width: int, height: int) -> None:
    """Say where the picture that came in lies, and what of it is kept for width x height."""
    left, top, kept_width, kept_height = cover_rectangle(picture.width, picture.height, width, height)
    record["source"] = picture.address
    record["source_row_bytes"] = picture.row_bytes
    record["source_width"], record["source_height"] = picture.width, picture.height
    record["crop_left"], record["crop_top"] = left, top
    record["crop_width"], record["crop_height"] = kept_width, kept_height


def write_rows(record: Record, frames: Sequence[int | None], view: WindowView) -> None:
    """Say for every row which frame it holds, and what that frame sees of the past."""
    rows = record["rows"][0][: len(frames)]
    rows["active"] = [frame is not None for frame in frames]
    rows["frame"] = [0 if frame is None else frame for frame in frames]
    rows["position"] = view.position
    rows["write_slot"] = view.write_slot
    rows["past_position"] = view.past_position
    rows["visible"] = view.visible
