"""The split form: segment, temporal attention, segment, …; plans between which a kernel reads the ring in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cuda.core import Stream
from numpy.typing import NDArray

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.arena import Arena, chunk_stride_bytes
from live2diff_trt.engine.plan import Plan
from live2diff_trt.engine.split import AttentionCut, Segment, UNetSplit
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_ring import DeviceKvRing
from live2diff_trt.runtime.device_unet import UNetRows, row_layout


@dataclass(frozen=True)
class SplitForm:
    """What the plan store holds of a split UNet.

    Attributes:
        split: segments, attentions and what crosses the cuts.
        arena: where everything that crosses lies, for ceil(8 / rows) chunks.
        rows: R, the fixed row count of every segment.
        tables: initialiser → ``W·pe``, [window, channels].
    """

    split: UNetSplit
    arena: Arena
    rows: int
    tables: Mapping[str, NDArray[np.floating]]


class SplitUNet:
    """The UNet as segments and kernels. Owner of the arena, of the rows and of the position tables.

    Args:
        memory: where to allocate.
        plans: holds every segment.
        form: what they are segments of.
        ring: read and written in place by the attention kernels.
        conditions: what is hoisted.
        parameters: the tick's parameters on the device, uint8.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        plans: Mapping[str, Plan],
        kernels: Kernels,
        spec: StreamSpec,
        form: SplitForm,
        ring: DeviceKvRing,
        conditions: DeviceConditions,
        parameters: DeviceTensor,
    ) -> None:
        self._plans = plans
        self._kernels = kernels
        self._spec = spec
        self._form = form
        self._ring = ring
        self._conditions = conditions
        self._parameters = parameters
        self._crossing = _place_crossing(memory, form, spec.sink)
        self._tables = _upload_tables(memory, form, spec)
        rows = row_layout(spec, spec.sink, form.rows)
        borders = rows.at(memory.allocate("rows", rows.nbytes), memory.device_id)
        self._borders = {**borders, **self._crossing}
        self.tick_rows = self._take_rows(spec.steps)
        self.warm_up_rows = self._take_rows(spec.sink)

    @property
    def attentions(self) -> tuple[AttentionCut, ...]:
        """The cuts, in order."""
        return self._form.split.attentions

    def tick(self, stream: Stream) -> None:
        """Run all rows over the ring; the new slots are written into it in place."""
        self._run(stream, self._spec.steps, self._conditions.tick_inputs, self.attend)

    def warm_up(self, stream: Stream, step: int) -> None:
        """Run the warm-up frames at a denoising step, and fill the sink of that step's row in place."""

        def attend(stream: Stream, cut: AttentionCut) -> None:
            self._kernels.warm_up_attention(
                stream, **self._attention_tensors(cut, self._spec.sink), row=step, heads=self._spec.heads
            )

        self._run(stream, self._spec.sink, lambda _: self._conditions.warm_up_inputs(step), attend)

    def _run(
        self,
        stream: Stream,
        rows: int,
        hoisted: Callable[[int], Mapping[str, int]],
        attend: Callable[[Stream, AttentionCut], None],
    ) -> None:
        chunks = -(-rows // self._form.rows)
        inputs = [hoisted(chunk) for chunk in range(chunks)]
        for segment, cut in zip(self._form.split.segments, (*self._form.split.attentions, None), strict=True):
            for chunk in range(chunks):
                self._run_segment(stream, segment, chunk, inputs[chunk])
            if cut is not None:
                attend(stream, cut)

    def _run_segment(self, stream: Stream, segment: Segment, chunk: int, hoisted: Mapping[str, int]) -> None:
        plan = self._plans[segment.name]
        for name in (*segment.inputs, *segment.outputs):
            border = self._borders.get(name)
            plan.bind(name, hoisted[name] if border is None else border.chunk(chunk).address)
        plan.enqueue(int(stream.handle))

    def attend(self, stream: Stream, cut: AttentionCut) -> None:
        """Let the rows of a tick attend to their past at one cut, and write the new slot."""
        self._kernels.streaming_attention(
            stream,
            **self._attention_tensors(cut, self._spec.steps),
            parameters=self._parameters,
            heads=self._spec.heads,
        )

    def _attention_tensors(self, cut: AttentionCut, rows: int) -> dict[str, Any]:
        def take(name: str) -> DeviceTensor:
            tensor = self._crossing[name]
            return replace(tensor, shape=(rows, *tensor.shape[1:]))

        return {
            "q": take(cut.q),
            "k": take(cut.k),
            "v": take(cut.v),
            "out": take(cut.out),
            "tables": tuple(self._tables[name] for name in cut.tables),
            "past_k_rows": self._ring.row_addresses("k", cut.place),
            "past_v_rows": self._ring.row_addresses("v", cut.place),
        }

    def _take_rows(self, rows: int) -> UNetRows:
        return UNetRows(
            *(
                replace(self._borders[name], shape=(rows, *self._borders[name].shape[1:]))
                for name in ("sample", "depth_features", "model_output")
            )
        )


def _place_crossing(memory: DeviceMemory, form: SplitForm, rows: int) -> dict[str, DeviceTensor]:
    address = memory.allocate("arena", form.arena.bytes)
    return {
        tensor.name: DeviceTensor(
            address + form.arena.offsets[tensor.name],
            (rows, *tensor.row_shape),
            tensor.dtype,
            memory.device_id,
            form.rows,
            chunk_stride_bytes(tensor, form.rows),
        )
        for tensor in form.split.tensors
    }


def _upload_tables(memory: DeviceMemory, form: SplitForm, spec: StreamSpec) -> dict[str, DeviceTensor]:
    layout = tables_layout(form.tables, spec)
    views = layout.at(memory.allocate("position tables", layout.nbytes), memory.device_id)
    for name, view in views.items():
        memory.upload(view, form.tables[name])
    return views


def tables_layout(tables: Mapping[str, NDArray[np.floating]], spec: StreamSpec) -> BlockLayout:
    """Return where the position tables lie."""
    return BlockLayout({name: TensorLayout(values.shape, spec.dtype) for name, values in tables.items()})
