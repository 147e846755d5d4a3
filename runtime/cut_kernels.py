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
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.group_norm import group_norm_workspace
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_ring import DeviceKvRing

Constants = Mapping[str, NDArray[np.floating]]
KERNEL_CONSTANTS = "kernel constants"
"""What their memory is allocated for."""
_WORKSPACE = "group norm statistics"
"""Beside the constants, by a name that no initialiser has."""


class CutKernels:
    """Launches what a cut computes. Owner of what kernels read of the weights, and of their workspace.

    Args:
        memory: where to allocate.
        spec: the stream.
        split: the cuts.
        rows: the most of a launch.
        constants: initialiser → its values.
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
        constants: Constants,
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
        self._layout = kernel_layout(split, constants, spec, rows)
        self._constants = _upload(memory, self._layout, constants)

    def with_own_weights(self, memory: DeviceMemory, conditions: DeviceConditions, constants: Constants) -> CutKernels:
        """Return kernels over the same tensors and ring, which read weights of their own."""
        return copied(self, _conditions=conditions, _constants=_upload(memory, self._layout, constants))

    @property
    def weights(self) -> dict[str, DeviceTensor]:
        """What kernels read of the weights, by initialiser."""
        return {name: tensor for name, tensor in self._constants.items() if name != _WORKSPACE}

    def tick(self, stream: Stream, cut: Cut, rows: int) -> None:
        """Compute a cut for the rows of a tick; temporal attention writes the new slots into the ring, in place."""
        if isinstance(cut, TemporalAttentionCut):
            self._kernels.streaming_attention(
                stream, **self._temporal(cut, rows), parameters=self._parameters, heads=self._spec.heads
            )
        else:
            self._run(stream, cut, rows, self._conditions.tick_rows)

    def warm_up(self, stream: Stream, cut: Cut, row: int) -> None:
        """Compute a cut for the warm-up frames at a row's step, under its prompt; its sink is filled in place."""
        rows = self._spec.sink
        if isinstance(cut, TemporalAttentionCut):
            self._kernels.warm_up_attention(stream, **self._temporal(cut, rows), row=row, heads=self._spec.heads)
        else:
            self._run(stream, cut, rows, lambda name: self._conditions.warm_up_rows(name, row))

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
                statistics=self._constants[_WORKSPACE],
                groups=cut.groups,
                epsilon=cut.epsilon,
                silu=cut.silu,
            )
        elif isinstance(cut, GatedGeluCut):
            self._kernels.gated_gelu(stream, x=self._tokens(cut.x, rows), out=self._tokens(cut.out, rows))

    def _temporal(self, cut: TemporalAttentionCut, rows: int) -> dict[str, Any]:
        tensors = {"q": cut.q, "k": cut.k, "v": cut.v, "out": cut.out}
        return {
            **{name: self._tokens(tensor, rows) for name, tensor in tensors.items()},
            "tables": tuple(self._constants[name] for name in cut.tables),
            "past_k_rows": self._ring.row_addresses("k", cut.place),
            "past_v_rows": self._ring.row_addresses("v", cut.place),
        }

    def _tokens(self, name: str, rows: int) -> DeviceTensor:
        """Return the first rows of a crossing tensor as [rows, positions, channels], whichever way segments see it."""
        tensor = self._crossing[name]
        *positions, channels = tensor.shape[1:]
        return replace(tensor, shape=(rows, math.prod(positions), channels))


def kernel_layout(split: UNetSplit, constants: Constants, spec: StreamSpec, rows: int) -> BlockLayout:
    """Return where the constants lie, and the workspace for as many as ``rows`` rows."""
    groups = max((cut.groups for cut in _group_norms(split)), default=1)
    workspace = group_norm_workspace(rows, groups)
    return BlockLayout(
        {
            **{name: TensorLayout(constants[name].shape, spec.dtype) for name in split.constants},
            _WORKSPACE: TensorLayout(workspace, "float32"),
        }
    )


def _group_norms(split: UNetSplit) -> Iterable[GroupNormCut]:
    return (cut for cut in split.cuts if isinstance(cut, GroupNormCut))


def _upload(memory: DeviceMemory, layout: BlockLayout, constants: Constants) -> dict[str, DeviceTensor]:
    views = layout.at(memory.allocate(KERNEL_CONSTANTS, layout.nbytes), memory.device_id)
    for name, view in views.items():
        if name != _WORKSPACE:
            memory.upload(view, constants[name])
    return views
