"""The ring on the device: owner of all kv-cache memory of a stream. Kernels write one slot per tick, in place."""

from __future__ import annotations

import numpy as np
from cuda.core import Stream

from live2diff_trt.bundle.spec import KvCacheSpec, StreamSpec
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.device import DeviceMemory, copy_on_device, fill_with_zeros
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.kv_window import KvWindow

SIDES = ("k", "v")


class DeviceKvRing:
    """The kv-caches of a stream's rows, in one allocation, and the count of what is in them.

    Kernels find a row through a table of addresses, so that rows of several streams may share a launch. Those of
    warm-up find the row whose sink they fill through tables of one entry, so that one captured pass fills any row's.

    Args:
        memory: where to allocate.
        spec: the stream.
        rows: of the UNet, that there is to be room for; whole chunks where a plan reads whole chunks of the ring.

    Attributes:
        window: which slot holds which frame; integers on the host.
    """

    def __init__(self, memory: DeviceMemory, spec: StreamSpec, rows: int) -> None:
        self._spec = spec
        self.window = KvWindow(rows, spec.window, spec.sink)
        self._layout = ring_layout(spec, rows)
        self._address = memory.allocate("kv-cache ring", self._layout.nbytes)
        self._tensors = self._layout.at(self._address, memory.device_id)
        self._tables = self._upload_tables(memory, spec.kv_caches, rows)
        self._sinks = self._upload_sinks(memory, spec.kv_caches, rows)
        self._sink_tables = table_layout(spec.kv_caches, 1).at(self._sinks.address, memory.device_id)

    def past(self, side: str, place: str) -> DeviceTensor:
        """Return a view of the keys (``k``) or values (``v``) of one attention, [rows, window, positions, channels]."""
        return self._tensors[_name(side, place)]

    def row_addresses(self, side: str, place: str) -> DeviceTensor:
        """Return the table of where each row's block lies, uint64 [rows], on the device."""
        return self._tables[_name(side, place)]

    def sink_addresses(self, side: str, place: str) -> DeviceTensor:
        """Return the table of where the one row's block lies that warm-up was aimed at last, uint64 [1]."""
        return self._sink_tables[_name(side, place)]

    def aim_warm_up(self, stream: Stream, row: int) -> None:
        """Let warm-up's next pass fill the sink of a row, in the stream's order."""
        copy_on_device(stream, self._sinks.row(0), self._sinks.row(1 + row))

    def count_rows(self, rows: int) -> None:
        """Count frames in so many rows from here on, none of which has any; no more than the ring holds."""
        self.window = KvWindow(rows, self._spec.window, self._spec.sink)

    def reset(self, memory: DeviceMemory) -> None:
        """Forget every frame, in place: a key that was not a number must not survive in a slot that is hidden."""
        self.window.reset()
        fill_with_zeros(memory.stream, self._address, self._layout.nbytes)

    def _upload_tables(
        self, memory: DeviceMemory, caches: tuple[KvCacheSpec, ...], rows: int
    ) -> dict[str, DeviceTensor]:
        layout = table_layout(caches, rows)
        tables = layout.at(memory.allocate("kv-cache ring", layout.nbytes), memory.device_id)
        for name, table in tables.items():
            past = self._tensors[name]
            memory.upload(table, np.array([past.row(row).address for row in range(rows)], np.uint64))
        return tables

    def _upload_sinks(self, memory: DeviceMemory, caches: tuple[KvCacheSpec, ...], rows: int) -> DeviceTensor:
        layout = sink_layout(caches, rows)
        sinks = layout.at(memory.allocate("kv-cache ring", layout.nbytes), memory.device_id)
        addresses = np.zeros(layout.shape, np.uint8).view(np.uint64)
        for name, table in table_layout(caches, 1).at(0, memory.device_id).items():
            past = self._tensors[name]
            addresses[1:, table.address // table.item_bytes] = [past.row(row).address for row in range(rows)]
        memory.upload(sinks, addresses.view(np.uint8))
        return sinks


def ring_layout(spec: StreamSpec, rows: int) -> BlockLayout:
    """Return where each cache of ``rows`` rows lies."""
    return BlockLayout(
        {
            _name(side, cache.name): TensorLayout((rows, spec.window, cache.positions, cache.channels), spec.dtype)
            for cache in spec.kv_caches
            for side in SIDES
        }
    )


def table_layout(caches: tuple[KvCacheSpec, ...], rows: int) -> BlockLayout:
    """Return where each cache's table of row addresses lies."""
    return BlockLayout({_name(side, cache.name): TensorLayout((rows,), "uint64") for cache in caches for side in SIDES})


def sink_layout(caches: tuple[KvCacheSpec, ...], rows: int) -> TensorLayout:
    """Return where tables of one entry lie, each cache's: first those of the row that is aimed at, then every row's."""
    return TensorLayout((1 + rows, table_layout(caches, 1).nbytes), "uint8")


def _name(side: str, place: str) -> str:
    return f"past_{side}.{place}"
