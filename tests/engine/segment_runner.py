"""Runs the split form on the CPU: segments by ONNX Runtime, numpy's kernels between them, what crosses in an arena.

Memory is treated as the GPU's is, only worse: it begins as NaN, what is no longer alive becomes NaN again, and so are
the rows that pad a chunk. Whatever reads a byte that it should not gives NaN.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from live2diff_trt.bundle.manifest import WEIGHTS_FILE
from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.arena import Arena, arena_of, chunk_stride_bytes
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.engine.split import (
    CrossingTensor,
    Cut,
    GatedGeluCut,
    GroupNormCut,
    SpatialAttentionCut,
    TemporalAttentionCut,
)
from live2diff_trt.engine.split_graph import cut_unet, load_constants
from live2diff_trt.kernels import reference

Array = NDArray[Any]
Attend = Callable[[TemporalAttentionCut, Array, Array, Array], Array]


class SegmentRunner:
    """The split form of the UNet in ``exported``, with ``rows`` rows in a chunk, and room for ``chunks`` chunks.

    Attributes:
        arena: where tensors lie; a test may replace it by another one.
        new: after a run, ``new_k.*`` and ``new_v.*``, each [rows, positions, channels].
    """

    def __init__(self, exported: Path, scratch: Path, spec: StreamSpec, rows: int, chunks: int) -> None:
        unet = exported / "unet.onnx"
        cut = cut_unet(unet, spec, rows)
        self._spec = spec
        self._split = cut.split
        self._rows = rows
        self._chunks = chunks
        self._constants = load_constants(unet, cut.split)
        self.arena: Arena = arena_of(cut.split, rows, chunks)
        self._memory = np.full(self.arena.bytes, 0xFF, np.uint8)
        self.new: dict[str, Array] = {}
        shutil.copy(exported / WEIGHTS_FILE, scratch)  # onnx refuses links
        for model in cut.models:
            onnx.save(model, scratch / f"{model.graph.name}.onnx")
        self._shapes = {model.graph.name: _input_shapes(model) for model in cut.models}
        graphs = OnnxGraphs(scratch, [_border(model) for model in cut.models], OnnxRuntimeOptions(threads=1))
        self._graphs = [graphs.open(segment.name) for segment in cut.split.segments]

    def tick(self, inputs: Mapping[str, Array]) -> Array:
        """Run ``unet`` on its own inputs, the past among them; return ``model_output``."""

        def attend(cut: TemporalAttentionCut, q: Array, k: Array, v: Array) -> Array:
            past = (inputs[f"past_k.{cut.place}"], inputs[f"past_v.{cut.place}"])
            window = (inputs["position"], inputs["past_position"], inputs["past_bias"])
            return reference.streaming_attention(q, k, v, *past, self._place_tables(cut), *window, self._spec.heads)

        return self._run(inputs, attend)

    def warm_up(self, inputs: Mapping[str, Array]) -> Array:
        """Run ``unet_warmup`` on its own inputs; return ``model_output``."""

        def attend(cut: TemporalAttentionCut, q: Array, k: Array, v: Array) -> Array:
            return reference.warm_up_attention(q, k, v, self._place_tables(cut), self._spec.heads)

        return self._run(inputs, attend)

    def view(self, tensor: CrossingTensor) -> Array:
        """Return a tensor's place in the arena, [chunks, rows of a chunk, …]."""
        offset, stride = self.arena.offsets[tensor.name], chunk_stride_bytes(tensor, self._rows)
        dtype = np.dtype(tensor.dtype)
        shape = (self._chunks, self._rows, *tensor.row_shape)
        inner = np.cumprod([dtype.itemsize, *tensor.row_shape[::-1]])[::-1]
        return np.ndarray(shape, dtype, self._memory, offset, (stride, *map(int, inner)))

    def _place_tables(self, cut: TemporalAttentionCut) -> tuple[Array, Array, Array]:
        pe_q, pe_k, pe_v = (self._constants[name] for name in cut.tables)
        return pe_q, pe_k, pe_v

    def _run(self, inputs: Mapping[str, Array], attend: Attend) -> Array:
        real = len(inputs["sample"])
        used = -(-real // self._rows)
        self._memory[:] = 0xFF
        for index, graph in enumerate(self._graphs):
            segment = self._split.segments[index]
            for chunk in range(used):
                border = {name: self._read(segment.name, name, inputs, chunk) for name in segment.inputs}
                for name, values in graph.run(border).items():
                    self._write(name, values, chunk)
            self._forget(2 * index)
            if index < len(self._split.cuts):
                self._compute(self._split.cuts[index], inputs, attend, real)
                self._forget(2 * index + 1)
        return self._take(self._split.tensor("model_output"), real)

    def _compute(self, cut: Cut, inputs: Mapping[str, Array], attend: Attend, real: int) -> None:
        """Do what the kernel of a cut does, on tokens."""
        if isinstance(cut, TemporalAttentionCut):
            q, k, v = (self._tokens(name, real) for name in (cut.q, cut.k, cut.v))
            self.new |= {f"new_k.{cut.place}": k, f"new_v.{cut.place}": v}
            self._put(cut.out, attend(cut, q, k, v))
        elif isinstance(cut, SpatialAttentionCut):
            k, v = (inputs[name] if cut.to_prompt else self._tokens(name, real) for name in (cut.k, cut.v))
            self._put(cut.out, reference.spatial_attention(self._tokens(cut.q, real), k, v, cut.heads))
        elif isinstance(cut, GroupNormCut):
            scale, bias = self._constants[cut.scale], self._constants[cut.bias]
            row_bias = inputs[cut.row_bias] if cut.row_bias else None
            x = self._tokens(cut.x, real)
            self._put(cut.out, reference.group_norm(x, scale, bias, row_bias, cut.groups, cut.epsilon, cut.silu))
        elif isinstance(cut, GatedGeluCut):
            self._put(cut.out, reference.gated_gelu(self._tokens(cut.x, real)))

    def _put(self, name: str, values: Array) -> None:
        view = self.view(self._split.tensor(name))
        for row, tokens in enumerate(values):
            place = view[divmod(row, self._rows)]
            place[:] = tokens.reshape(place.shape)

    def _tokens(self, name: str, real: int) -> Array:
        """Copy the first rows of a tensor, [rows, positions, channels], whichever way segments see it."""
        values = self._take(self._split.tensor(name), real)
        return values.reshape(real, -1, values.shape[-1])

    def _take(self, tensor: CrossingTensor, real: int) -> Array:
        """Copy the first rows of a tensor out of its chunks."""
        return np.concatenate(list(self.view(tensor)))[:real]

    def _read(self, segment: str, name: str, inputs: Mapping[str, Array], chunk: int) -> Array:
        if name in inputs:
            rows = inputs[name][chunk * self._rows : (chunk + 1) * self._rows]
            padding = [(0, self._rows - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
            return np.pad(rows, padding, constant_values=np.nan)
        tensor = self._split.tensor(name)
        values = self.view(tensor)[chunk]
        if tensor.channels_last:
            return np.ascontiguousarray(np.moveaxis(values, -1, 1))
        return values.reshape(self._shapes[segment][name])

    def _write(self, name: str, values: Array, chunk: int) -> None:
        """Write what a segment wrote into the bytes its plan would write, dense from the chunk's start."""
        tensor = self._split.tensor(name)
        ordered = np.ascontiguousarray(np.moveaxis(values, 1, -1) if tensor.channels_last else values)
        start = self.arena.offsets[name] + chunk * chunk_stride_bytes(tensor, self._rows)
        self._memory[start : start + ordered.nbytes] = ordered.view(np.uint8).reshape(-1)

    def _forget(self, step: int) -> None:
        """Make NaN of what nobody reads after a step."""
        for tensor in self._split.tensors:
            if tensor.last == step and tensor.name != "model_output" and tensor.owns_memory:
                start = self.arena.offsets[tensor.name]
                self._memory[start : start + self._chunks * chunk_stride_bytes(tensor, self._rows)] = 0xFF


def _input_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the inputs' shapes: tokens of all rows may be one axis."""
    return {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in model.graph.input
    }


def _border(model: onnx.ModelProto) -> GraphSignature:
    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(value.name, (), "") for value in values)  # only names are asked for

    return GraphSignature(model.graph.name, specs(model.graph.input), specs(model.graph.output))
