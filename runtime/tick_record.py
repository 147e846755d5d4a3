"""The host's side of a tick's parameters: integers in, one record out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.kernels.reference import cover_rectangle
from live2diff_trt.kernels.tick_parameters import FRAME_WORDS, MAXIMUM_ROWS, ROW, TICK_PARAMETERS
from live2diff_trt.runtime.device_image import DevicePicture
from live2diff_trt.runtime.kv_window import Int32Array, WindowView


class TickRecord:
    """One tick's parameters. Every method writes them in place, and nothing that the memory says already.

    Args:
        memory: uint8 [bytes of TICK_PARAMETERS].

    Attributes:
        memory: the same.
        fields: the same, [1] of TICK_PARAMETERS.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.fields: NDArray[np.void] = memory.view(TICK_PARAMETERS)
        # Views that are made once: of a structured array, each would take as long as the writing.
        words = self.fields["rows"][0].view(np.int32).reshape(MAXIMUM_ROWS, -1)
        self._active, self._frame = words[:, :FRAME_WORDS].T
        self._seen = words[:, FRAME_WORDS:]
        self._seed = self.fields["seed"]
        self._guidance = self.fields["guidance_scale"], self.fields["guidance_delta"]
        self._source: tuple[DevicePicture, int, int] | None = None

    def write_seed(self, seed: int) -> None:
        """Say of which seed the noise is, unsigned, 64 bits."""
        self._seed[0] = seed

    def write_guidance(self, scale: float, delta: float) -> None:
        """Say how a guided stream is guided."""
        for field, value in zip(self._guidance, (scale, delta), strict=True):
            field[0] = value

    def write_source(self, picture: DevicePicture, width: int, height: int) -> None:
        """Say where the picture that came in lies, and what of it is kept for width x height."""
        source = picture, width, height
        if source == self._source:
            return
        left, top, kept_width, kept_height = cover_rectangle(picture.width, picture.height, width, height)
        fields = self.fields
        fields["source"] = picture.address
        fields["source_row_bytes"] = picture.row_bytes
        fields["source_width"], fields["source_height"] = picture.width, picture.height
        fields["crop_left"], fields["crop_top"] = left, top
        fields["crop_width"], fields["crop_height"] = kept_width, kept_height
        self._source = source

    def write_rows(self, frames: Sequence[int | None], view: WindowView) -> None:
        """Say for every row which frame it holds, and what that frame sees of the past."""
        for row, frame in enumerate(frames):
            self._active[row] = frame is not None
            self._frame[row] = frame or 0
        self._seen[: len(frames)] = _pack(view)


@lru_cache(maxsize=1024)
def _pack(view: WindowView) -> Int32Array:
    """Return a view as rows hold it, int32 [rows, words that say what a frame sees]. Cached, as views are."""
    rows = np.zeros(len(view.position), ROW)
    for field in ("position", "write_slot", "past_position", "visible"):
        rows[field] = getattr(view, field)
    return rows.view(np.int32).reshape(len(rows), -1)[:, FRAME_WORDS:]
