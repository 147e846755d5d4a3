"""What changes from tick to tick: a few numbers, computed on the host and fetched as one small buffer.

The same structure as ``TickParameters`` in ``tick_parameters.cuh``; a test compares their sizes and offsets.
"""

from __future__ import annotations

import numpy as np

MAXIMUM_STEPS = 8
"""Of a step list."""
MAXIMUM_ROWS = 2 * MAXIMUM_STEPS
"""Rows of one launch: every step under the prompt, and under a negative one; warm-up has 8 frames."""
WINDOW = 16
SINK = 8

ROW = np.dtype(
    [
        ("active", np.int32),  # 1 where the row holds a real frame: only then is a slot written
        ("frame", np.int32),  # its index in the stream, for its noise
        ("position", np.int32),  # of the row's own frame
        ("write_slot", np.int32),  # where its keys and values belong
        ("past_position", np.int32, (WINDOW,)),
        ("visible", np.int32, (WINDOW,)),
    ]
)
"""Of one row, words of 32 bits: FRAME_WORDS say which frame it holds, the others what that frame sees of the past."""
FRAME_WORDS = 2

TICK_PARAMETERS = np.dtype(
    [
        ("seed", np.uint64),
        ("source", np.uint64),  # device address of the picture that came in, uint8 [source_height, source_width, 3]
        ("source_row_bytes", np.int64),
        ("source_width", np.int32),
        ("source_height", np.int32),
        ("crop_left", np.int32),  # what is kept of it: kernels/reference.py, cover_rectangle
        ("crop_top", np.int32),
        ("crop_width", np.int32),
        ("crop_height", np.int32),
        ("rows", ROW, (MAXIMUM_ROWS,)),
        ("guidance_scale", np.float32),  # read by the guided kernels alone
        ("guidance_delta", np.float32),
        ("unused", np.int32, (2,)),  # all of it is copied as vectors of 16 bytes
    ],
    align=True,
)
"""One record is one tick's parameters; little-endian, as every CUDA device is."""
