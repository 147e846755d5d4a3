"""Which slot of a kv-cache holds which frame: integers only, the same for every backend.

Live2Diff, arXiv 2407.08701, section 4. With n frames streamed into a row before this one, the new frame's position is
``sink + min(n, rolling - 1)`` and the frame that came a ticks earlier has that position minus a. At most ``rolling``
streamed frames are visible, the new one included; the sink always is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class WindowView:
    """The past as the rows of one tick see it.

    Attributes:
        position: [rows] int32, the new frame's position.
        past_position: [rows, window] int32, each slot's position; of a hidden slot, its own index.
        visible: [rows, window] bool, whether the slot holds a frame this tick may look at.
        write_slot: [rows] int32, where the new frame's keys and values belong. Hidden in this tick.
    """

    position: Int32Array
    past_position: Int32Array
    visible: NDArray[np.bool_]
    write_slot: Int32Array

    def past_bias(self, dtype: str) -> NDArray[np.floating]:
        """Return the mask that is added to attention scores, [rows, window]: 0, or −inf where hidden."""
        return np.where(self.visible, 0.0, -np.inf).astype(dtype)


class KvWindow:
    """Counts the frames streamed into each row. A row's count starts when its first real frame arrives."""

    def __init__(self, rows: int, window: int, sink: int) -> None:
        self._window = window
        self._sink = sink
        self._counts = [0] * rows

    @property
    def counts(self) -> NDArray[np.int64]:
        """Frames streamed into each row so far, [rows]; a copy."""
        return np.array(self._counts, np.int64)

    def view(self) -> WindowView:
        """Return what the next tick sees; read-only arrays. Changes nothing."""
        rolling = self._window - self._sink
        # Once the window rolls, views repeat: only the count's place on the ring matters.
        counts = tuple(count if count < rolling else rolling + count % rolling for count in self._counts)
        return _view(counts, self._window, self._sink)

    def advance(self, active: Sequence[bool]) -> None:
        """Count one more frame in every row that held a real one in this tick. Changes the counts in place."""
        self._counts = [count + bool(held) for count, held in zip(self._counts, active, strict=True)]

    def reset(self) -> None:
        """Forget every streamed frame."""
        self._counts = [0] * len(self._counts)


@lru_cache(maxsize=1024)
def _view(counts: tuple[int, ...], window: int, sink: int) -> WindowView:
    """Return what rows see into which ``counts`` frames were streamed. Cached: it is asked for in every tick."""
    rolling = window - sink
    streamed = np.array(counts, np.int64)
    newest = sink + np.minimum(streamed, rolling - 1)
    slot = np.arange(window)
    # The youngest frame that went to this slot came `age` ticks before the new one; 0 < age <= rolling.
    age = (streamed[:, None] - 1 - (slot - sink)) % rolling + 1
    in_sink = slot < sink
    visible = in_sink | ((age < rolling) & (age <= streamed[:, None]))
    past_position = np.where(visible & ~in_sink, newest[:, None] - age, slot)
    arrays = (
        newest.astype(np.int32),
        past_position.astype(np.int32),
        visible,
        (sink + streamed % rolling).astype(np.int32),
    )
    for array in arrays:
        array.flags.writeable = False
    return WindowView(*arrays)
