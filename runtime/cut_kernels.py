"""What runs between the segments of the split form: one kernel of ours at each cut, over all rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from cuda.core import Stream
from numpy.typing import NDArray

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.split import (
    Cut,
    GatedGeluCut,
    GroupNormCut,
    SpatialAttentionCut,
    TemporalAttentionCut,
    UNetSplit,
)
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.group_norm import group_norm_workspace
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_ring import DeviceKvRing

KERNEL_CONSTANTS = "kernel constants"
"""What memory is allocated for that holds what kernels read of the weights."""
STATISTICS = "group norm statistics"
"""What memory is allocated for that kernels leave to each other."""


class CutKernels:
    """Launches what a cut computes. Owner of what kernels leave to each other.

    Args:
        memory: where to allocate.
        spec: the stream.
        split: the cuts.
        rows: the most of a launch.
        constants: initialiser → what kernels read of the weights; only read.
        crossing: every crossing tensor, with room for the rows of a tick and of warm-up.
        ring: read and written in place by temporal attention.
        conditions: what is hoisted.
        parameters: the tick's parameters on the device, uint8.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        kernels: Kernels,
        spec: StreamSpec,
        split: UNetSplit,
        rows: int,
        constants: Mapping[str, DeviceTensor],
        crossing: Mapping[str, DeviceTensor],
        ring: DeviceKvRing,
        conditions: DeviceConditions,
        parameters: DeviceTensor,
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._crossing = crossing
        self._ring = ring
        self._conditions = conditions
        self._parameters = parameters
        self._constants = constants
        statistics = statistics_layout(split, rows)
        self._statistics = statistics.at(memory.allocate(STATISTICS, statistics.nbytes), memory.device_id)

    def with_weights(self, conditions: DeviceConditions, constants: Mapping[str, DeviceTensor]) -> CutKernels:
        """Return kernels over the same tensors and ring, which read other weights."""
        return copied(self, _conditions=conditions, _constants=constants)

    def tick(self, stream: Stream, cut: Cut, rows: int) -> None:
        """Compute a cut for the rows of a tick; temporal attention writes the new slots into the ring, in place."""
        if isinstance(cut, TemporalAttentionCut):
            tensors = self._temporal(cut, rows, self._ring.row_addresses)
            self._kernels.streaming_attention(stream, **tensors, parameters=self._parameters, heads=self._spec.heads)
        else:
            self._run(stream, cut, rows, self._conditions.tick_rows)

    def warm_up(self, stream: Stream, cut: Cut) -> None:
        """Compute a cut for the warm-up frames as the row that was aimed at; its sink is filled in place."""
        rows = self._spec.sink
        if isinstance(cut, TemporalAttentionCut):
            tensors = self._temporal(cut, rows, self._ring.sink_addresses)
            self._kernels.warm_up_attention(stream, **tensors, row=0, heads=self._spec.heads)
        else:
            self._run(stream, cut, rows, self._conditions.warm_up_rows)

    def _run(self, stream: Stream, cut: Cut, rows: int, hoisted: Callable[[str], DeviceTensor]) -> None:
        """Compute what does not look at other frames; a view computes nothing."""
        if isinstance(cut, SpatialAttentionCut):
            take = hoisted if cut.to_prompt else lambda name: self._tokens(name, rows)
            tensors = {"q": self._tokens(cut.q, rows), "k": take(cut.k), "v": take(cut.v)}
            self._kernels.spatial_attention(stream, **tensors, out=self._tokens(cut.out, rows), heads=cut.heads)
        elif isinstance(cut, GroupNormCut):
            self._kernels.group_norm(
                stream,
                x=self._tokens(cut.x, rows),
                out=self._tokens(cut.out, rows),
                scale=self._constants[cut.scale],
                bias=self._constants[cut.bias],
                row_bias=hoisted(cut.row_bias) if cut.row_bias else None,
                statistics=self._statistics,
                groups=cut.groups,
                epsilon=cut.epsilon,
                silu=cut.silu,
            )
        elif isinstance(cut, GatedGeluCut):
            self._kernels.gated_gelu(stream, x=self._tokens(cut.x, rows), out=self._tokens(cut.out, rows))

    def _temporal(
        self, cut: TemporalAttentionCut, rows: int, addresses: Callable[[str, str], DeviceTensor]
    ) -> dict[str, Any]:
        tensors = {"q": cut.q, "k": cut.k, "v": cut.v, "out": cut.out}
        return {
            **{name: self._tokens(tensor, rows) for name, tensor in tensors.items()},
            "tables": tuple(self._constants[name] for name in cut.tables),
            "past_k_rows": addresses("k", cut.place),
            "past_v_rows": addresses("v", cut.place),
        }

    def _tokens(self, name: str, rows: int) -> DeviceTensor:
        """Return the first rows of a crossing tensor as [rows, positions, channels], whichever way segments see it."""
        tensor = self._crossing[name]
        *positions, channels = tensor.shape[1:]
        return replace(tensor, shape=(rows, math.prod(positions), channels))


def constant_layout(split: UNetSplit, constants: Mapping[str, NDArray[np.floating]], dtype: str) -> BlockLayout:
    """Return where the constants lie."""
    return BlockLayout({name: TensorLayout(constants[name].shape, dtype) for name in split.constants})


def statistics_layout(split: UNetSplit, rows: int) -> TensorLayout:
    """Return the layout of what the kernels of group norms leave to each other, for as many as ``rows`` rows."""
    groups = max((cut.groups for cut in _group_norms(split)), default=1)
    return TensorLayout(group_norm_workspace(rows, groups), "float32")


def upload_constants(memory: DeviceMemory, stored: StoredPlans, dtype: str) -> dict[str, DeviceTensor]:
    """Put what kernels read of the weights onto the device, in the stream's dtype; by initialiser. Waits for it."""
    split = stored.split
    if split is None or not split.constants:
        return {}
    layout = constant_layout(split, stored.constants, dtype)
    views = layout.at(memory.allocate(KERNEL_CONSTANTS, layout.nbytes), memory.device_id)
    for name, view in views.items():
        memory.upload(view, stored.constants[name])
    return views


def _group_norms(split: UNetSplit) -> Iterable[GroupNormCut]:
    return (cut for cut in split.cuts if isinstance(cut, GroupNormCut))
