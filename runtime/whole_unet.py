"""The whole form: one plan a tick, which reads the ring and hands out new slots; a kernel writes them into the ring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace

import numpy as np
from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan import Plan
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.window import SLOT_COPY, NewSlots, slot_copies
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_ring import SIDES, DeviceKvRing
from live2diff_trt.runtime.device_unet import UNetRows, row_layout
from live2diff_trt.runtime.stream_rows import StreamRows

Named = dict[str, DeviceTensor]


class WholeUNet:
    """The UNet as one plan for a tick and one for warm-up. Owner of the rows, the window's tensors and the new slots.

    Args:
        memory: where to allocate.
        plans: holds ``unet`` and ``unet_warmup``.
        spec: the stream.
        rows: of a tick.
        most_rows: that there is to be room for.
        chunk_rows: R, the fixed row count of ``unet``.
        ring: read by the plan where it lies, in whole chunks of R rows; written by kernels.
        conditions: what is hoisted.
        parameters: the tick's parameters on the device, uint8.

    Attributes:
        rows: of a tick.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        plans: Mapping[str, Plan],
        kernels: Kernels,
        spec: StreamSpec,
        rows: StreamRows,
        most_rows: int,
        chunk_rows: int,
        ring: DeviceKvRing,
        conditions: DeviceConditions,
        parameters: DeviceTensor,
    ) -> None:
        self._plans = plans
        self._kernels = kernels
        self._spec = spec
        self._chunk_rows = chunk_rows
        self._ring = ring
        self._conditions = conditions
        self._parameters = parameters
        self._room, self._warm_up = _place_rows(memory, spec, most_rows, chunk_rows)
        window = window_layout(spec, most_rows, chunk_rows)
        self._window = window.at(memory.allocate("rows", window.nbytes), memory.device_id)
        self._tick_copies = self._upload_copies(memory, self._room, ring.row_addresses)
        self._warm_up_copies = self._upload_copies(memory, self._warm_up, ring.sink_addresses)
        self.rows = rows
        self.tick_rows = _rows_of(_first_rows(self._room, rows.count))
        self.warm_up_rows = _rows_of(self._warm_up)

    def with_rows(self, rows: StreamRows) -> WholeUNet:
        """Return this UNet with other rows, over the same memory: no more than it was opened with room for."""
        other = copy(self)
        other.rows = rows
        other.tick_rows = _rows_of(_first_rows(self._room, rows.count))
        return other

    def with_plans(
        self, plans: Mapping[str, Plan], conditions: DeviceConditions, constants: Mapping[str, DeviceTensor]
    ) -> WholeUNet:
        """Return this UNet over the same rows, with other plans; no kernel reads a weight."""
        return copied(self, _plans=plans, _conditions=conditions)

    def tick(self, stream: Stream) -> None:
        """Run all rows over the ring; the new slots are written into it in place."""
        rows = self.rows.count
        window = _first_rows(self._window, rows)
        self._kernels.window_inputs(stream, **window, parameters=self._parameters)
        for chunk in range(-(-rows // self._chunk_rows)):
            addresses = {name: tensor.chunk(chunk).address for name, tensor in {**self._room, **window}.items()}
            self._run(stream, "unet", {**addresses, **self._past(chunk), **self._conditions.tick_inputs(chunk)})
        self._kernels.scatter_slots(stream, copies=self._tick_copies, rows=rows, parameters=self._parameters)

    def aim_warm_up(self, stream: Stream, row: int) -> None:
        """Let warm-up's next pass be at a row's denoising step, under its prompt, and fill that row's sink."""
        self._ring.aim_warm_up(stream, row)
        self._conditions.aim_warm_up(stream, row)

    def warm_up(self, stream: Stream) -> None:
        """Run the warm-up frames as the row that was aimed at, and fill its sink in place."""
        addresses = {name: tensor.address for name, tensor in self._warm_up.items()}
        self._run(stream, "unet_warmup", {**addresses, **self._conditions.warm_up_inputs()})
        self._kernels.scatter_sink(stream, copies=self._warm_up_copies, row=0)

    def _run(self, stream: Stream, name: str, addresses: Mapping[str, int]) -> None:
        plan = self._plans[name]
        for tensor in plan.tensors:
            plan.bind(tensor, addresses[tensor])
        plan.enqueue(int(stream.handle))

    def _past(self, chunk: int) -> dict[str, int]:
        """Return where the plan reads the caches of a chunk's rows: in the ring itself."""
        first = chunk * self._chunk_rows
        return {
            f"past_{side}.{cache.name}": self._ring.past(side, cache.name).row(first).address
            for cache in self._spec.kv_caches
            for side in SIDES
        }

    def _upload_copies(
        self, memory: DeviceMemory, rows: Named, addresses: Callable[[str, str], DeviceTensor]
    ) -> DeviceTensor:
        new = [
            NewSlots(rows[f"new_{side}.{cache.name}"], addresses(side, cache.name))
            for cache in self._spec.kv_caches
            for side in SIDES
        ]
        layout = copies_layout(self._spec)
        copies = layout.at(memory.allocate("rows", layout.nbytes), memory.device_id)
        memory.upload(copies, slot_copies(new).view(np.uint8))
        return copies


def _place_rows(memory: DeviceMemory, spec: StreamSpec, most_rows: int, rows: int) -> tuple[Named, Named]:
    """Give a tick's rows and the warm-up's the same memory: warm-up forgets the rows of the stream."""
    tick, warm_up = whole_layout(spec, most_rows, rows), whole_layout(spec, spec.sink, spec.sink)
    address = memory.allocate("rows", max(tick.nbytes, warm_up.nbytes))
    return tick.at(address, memory.device_id), warm_up.at(address, memory.device_id)


def _rows_of(rows: Named) -> UNetRows:
    return UNetRows(rows["sample"], rows["depth_features"], rows["model_output"])


def _first_rows(tensors: Named, rows: int) -> Named:
    return {name: replace(tensor, shape=(rows, *tensor.shape[1:])) for name, tensor in tensors.items()}


def whole_layout(spec: StreamSpec, rows: int, chunk_rows: int) -> BlockLayout:
    """Return where what a plan takes and gives for each row lies."""
    borders = row_layout(spec, rows, chunk_rows).tensors
    new = {
        f"new_{side}.{cache.name}": TensorLayout((rows, cache.positions, cache.channels), spec.dtype, chunk_rows)
        for cache in spec.kv_caches
        for side in SIDES
    }
    return BlockLayout({**borders, "model_output": borders["sample"], **new})


def window_layout(spec: StreamSpec, most_rows: int, rows: int) -> BlockLayout:
    """Return where the tensors lie that tell the plan which slot holds which frame, of up to ``most_rows`` rows."""
    return BlockLayout(
        {
            "position": TensorLayout((most_rows,), "int32", rows),
            "past_position": TensorLayout((most_rows, spec.window), "int32", rows),
            "past_bias": TensorLayout((most_rows, spec.window), spec.dtype, rows),
        }
    )


def copies_layout(spec: StreamSpec) -> TensorLayout:
    """Return the layout of the records that say where each new slot goes."""
    return TensorLayout((2 * len(spec.kv_caches), SLOT_COPY.itemsize), "uint8")


def whole_parts(spec: StreamSpec, most_rows: int, rows: int) -> dict[str, int]:
    """Return what this form allocates, purpose → bytes."""
    tick, warm_up = whole_layout(spec, most_rows, rows), whole_layout(spec, spec.sink, spec.sink)
    window, copies = window_layout(spec, most_rows, rows).nbytes, copies_layout(spec).nbytes
    return {"rows": max(tick.nbytes, warm_up.nbytes) + window + 2 * copies}
