"""The ring: owner of all kv-cache memory of a stream. Everyone else holds views; the past stays where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.kv_window import KvWindow, WindowView

Array = NDArray[np.floating]
KeyValues = Mapping[str, tuple[Array, Array]]
"""A temporal attention's place → (k, v)."""


class KvRing:
    """Host kv-caches of rows, in one allocation, and the count of what is in them.

    Args:
        spec: of the stream.
        rows: of the UNet, T if not given; more, where some of them are under a negative prompt.

    Attributes:
        past: place → views (k, v) of the allocation, each [rows, window, positions, channels], contiguous. They are
            valid as long as the ring lives and change in place with every ``write`` and ``fill_sink``.
    """

    def __init__(self, spec: StreamSpec, rows: int | None = None) -> None:
        rows = spec.steps if rows is None else rows
        self._sink = spec.sink
        self._window = KvWindow(rows, spec.window, spec.sink)
        # Zeros, not empty: a hidden slot is multiplied by a weight of 0, and 0 · NaN would be NaN.
        self._memory: Array = np.zeros(
            spec.cache_bytes // spec.steps * rows // np.dtype(spec.dtype).itemsize, spec.dtype
        )
        self.past: KeyValues = self._carve(spec, rows)

    def _carve(self, spec: StreamSpec, rows: int) -> KeyValues:
        views: dict[str, tuple[Array, Array]] = {}
        offset = 0
        for cache in spec.kv_caches:
            shape = (2, rows, spec.window, cache.positions, cache.channels)
            block = self._memory[offset : offset + int(np.prod(shape))].reshape(shape)
            views[cache.name] = block[0], block[1]
            offset += block.size
        return views

    def view(self) -> WindowView:
        """Return the positions, mask and slots of the next tick."""
        return self._window.view()

    def fill_sink(self, row: int, new: KeyValues) -> None:
        """Write the warm-up frames' keys and values, each [sink, positions, channels], into a row's sink, in place."""
        for place, (new_k, new_v) in new.items():
            past_k, past_v = self.past[place]
            past_k[row, : self._sink] = new_k
            past_v[row, : self._sink] = new_v

    def write(self, new: KeyValues, active: Sequence[bool]) -> None:
        """Write one slot per active row, in place, and count it. Rows without a real frame leave no trace.

        Args:
            new: place → (k, v), each [rows, positions, channels].
            active: [rows], whether the row held a real frame in this tick.
        """
        rows = np.flatnonzero(active)
        slots = self._window.view().write_slot[rows]
        for place, (new_k, new_v) in new.items():
            past_k, past_v = self.past[place]
            past_k[rows, slots] = new_k[rows]
            past_v[rows, slots] = new_v[rows]
        self._window.advance(active)

    def reset(self) -> None:
        """Forget every frame, in place: a key that was not a number must not survive in a slot that is hidden."""
        self._window.reset()
        self._memory[:] = 0
