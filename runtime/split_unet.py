"""The split form: segment, kernel, segment, …; plans, and between them kernels of ours that read the ring in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace

from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.arena import Arena, arena_of, chunk_stride_bytes
from live2diff_trt.engine.plan import Plan
from live2diff_trt.engine.split import Cut, Segment, UNetSplit
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.cut_kernels import CutKernels
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_ring import DeviceKvRing
from live2diff_trt.runtime.device_unet import UNetRows, row_layout
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows


@dataclass(frozen=True)
class SplitForm:
    """What the plan store holds of a split UNet.

    Attributes:
        split: segments, cuts and what crosses them.
        arena: where everything that crosses lies, for ``most_rows`` in whole chunks.
        rows: R, the fixed row count of every segment.
        most_rows: of a pass: of a tick, or of warm-up.
        constants: initialiser → what kernels read of the weights, on the device.
    """

    split: UNetSplit
    arena: Arena
    rows: int
    most_rows: int
    constants: Mapping[str, DeviceTensor]


class SplitUNet:
    """The UNet as segments and kernels. Owner of the arena and of the rows.

    Args:
        memory: where to allocate.
        plans: holds every segment.
        form: what they are segments of.
        rows: of a tick.
        ring: read and written in place by temporal attention.
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
        form: SplitForm,
        rows: StreamRows,
        ring: DeviceKvRing,
        conditions: DeviceConditions,
        parameters: DeviceTensor,
    ) -> None:
        self._plans = plans
        self._sink = spec.sink
        self._form = form
        self._ring = ring
        self._conditions = conditions
        crossing = _place_crossing(memory, form)
        self._cuts = CutKernels(
            memory, kernels, spec, form.split, form.most_rows, form.constants, crossing, ring, conditions, parameters
        )
        layout = row_layout(spec, form.most_rows, form.rows)
        borders = layout.at(memory.allocate("rows", layout.nbytes), memory.device_id)
        self._borders = {**borders, **crossing}
        self.rows = rows
        self.tick_rows = self._take_rows(rows.count)
        self.warm_up_rows = self._take_rows(spec.sink)

    def with_rows(self, rows: StreamRows) -> SplitUNet:
        """Return this UNet with other rows, over the same memory: no more than it was opened with room for."""
        other = copy(self)
        other.rows = rows
        other.tick_rows = self._take_rows(rows.count)
        return other

    def with_plans(
        self, plans: Mapping[str, Plan], conditions: DeviceConditions, constants: Mapping[str, DeviceTensor]
    ) -> SplitUNet:
        """Return this UNet over the same rows, with other plans, and kernels that read other weights."""
        cuts = self._cuts.with_weights(conditions, constants)
        return copied(self, _plans=plans, _conditions=conditions, _cuts=cuts)

    @property
    def split(self) -> UNetSplit:
        """Segments, cuts, and what crosses them."""
        return self._form.split

    def tick(self, stream: Stream) -> None:
        """Run all rows over the ring; the new slots are written into it in place."""
        self._run(stream, self.rows.count, self._conditions.tick_inputs, self.compute)

    def aim_warm_up(self, stream: Stream, row: int) -> None:
        """Let warm-up's next pass be at a row's denoising step, under its prompt, and fill that row's sink."""
        self._ring.aim_warm_up(stream, row)
        self._conditions.aim_warm_up(stream, row)

    def warm_up(self, stream: Stream) -> None:
        """Run the warm-up frames as the row that was aimed at, and fill its sink in place."""
        self._run(stream, self._sink, lambda _: self._conditions.warm_up_inputs(), self._cuts.warm_up)

    def compute(self, stream: Stream, cut: Cut) -> None:
        """Let the kernel of one cut run over the rows of a tick."""
        self._cuts.tick(stream, cut, self.rows.count)

    def _run(
        self,
        stream: Stream,
        rows: int,
        hoisted: Callable[[int], Mapping[str, int]],
        compute: Callable[[Stream, Cut], None],
    ) -> None:
        chunks = -(-rows // self._form.rows)
        inputs = [hoisted(chunk) for chunk in range(chunks)]
        for segment, cut in zip(self._form.split.segments, (*self._form.split.cuts, None), strict=True):
            for chunk in range(chunks):
                self._run_segment(stream, segment, chunk, inputs[chunk])
            if cut is not None:
                compute(stream, cut)

    def _run_segment(self, stream: Stream, segment: Segment, chunk: int, hoisted: Mapping[str, int]) -> None:
        plan = self._plans[segment.name]
        for name in (*segment.inputs, *segment.outputs):
            border = self._borders.get(name)
            plan.bind(name, hoisted[name] if border is None else border.chunk(chunk).address)
        plan.enqueue(int(stream.handle))

    def _take_rows(self, rows: int) -> UNetRows:
        return UNetRows(
            *(
                replace(self._borders[name], shape=(rows, *self._borders[name].shape[1:]))
                for name in ("sample", "depth_features", "model_output")
            )
        )


def most_rows(spec: StreamSpec, room: StreamRoom) -> int:
    """Return how many rows a pass has at most: that of a tick, or that of warm-up."""
    return max(spec.sink, room.unet_rows)


def roomy_arena(arena: Arena, split: UNetSplit, spec: StreamSpec, room: StreamRoom, rows: int) -> Arena:
    """Return the arena that was planned when the plans of R = ``rows`` were built, or a larger one for more rows.

    That one has room for warm-up's frames, which are as many as the rows of most streams or more.
    """
    if room.unet_rows <= spec.sink:
        return arena
    return arena_of(split, rows, -(-most_rows(spec, room) // rows))


def _place_crossing(memory: DeviceMemory, form: SplitForm) -> dict[str, DeviceTensor]:
    address = memory.allocate("arena", form.arena.bytes)
    return {
        tensor.name: DeviceTensor(
            address + form.arena.offsets[tensor.name],
            (form.most_rows, *tensor.row_shape),
            tensor.dtype,
            memory.device_id,
            form.rows,
            chunk_stride_bytes(tensor, form.rows),
        )
        for tensor in form.split.tensors
    }
