"""The split form of the UNet as plain data: segments, the attentions between them, and the tensors that cross.

Execution is a line of steps: segment i is step 2·i, attention i is step 2·i + 1. ``engine/split_graph.py`` makes a
``UNetSplit`` from a graph; a plan's manifest keeps it, so that the runtime needs no ONNX.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from live2diff_trt.bundle.spec import FloatName

PACKED_PARTS = 3
"""q, k and v."""


@dataclass(frozen=True)
class CrossingTensor:
    """A tensor that lives in memory between steps, one row after the other.

    Attributes:
        name: as the segments' borders call it.
        row_shape: of one row as it lies in memory, dense.
        first: the step that writes it. last: the step that reads it last; its own step where nobody does.
        channels_last: whether it is a picture that lies in memory as (height, width, channels), though the segments'
            graphs know it as [rows, channels, height, width]. Their plans bind it in that format. Transposes in the
            graphs instead would leave a copy beside every convolution whose result crosses.
        packed_in, part: q, k and v are parts 0, 1 and 2 of the tensor ``packed_in``, which is what a segment binds:
            [3, R, positions, channels] in each chunk of R rows. Three outputs instead would be three copies, since
            TensorRT merges the projections into one product. Empty and 0 for what lies by itself.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: FloatName
    first: int
    last: int
    channels_last: bool = False
    packed_in: str = ""
    part: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, dense."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Segment:
    """A piece of the UNet without temporal attention. It treats rows as independent.

    Attributes:
        inputs: inputs of the UNet that it reads, then crossing tensors. outputs: crossing tensors. In either, none that
            is packed in another.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class AttentionCut:
    """The temporal attention between two segments.

    Attributes:
        place: ``KvCacheSpec.name`` of its cache.
        q, k, v, out: crossing tensors, each row [positions, channels]; k and v are what the new slot keeps. q, k and v
            are packed in one.
        tables: initialisers of the graph that hold ``W·pe`` for q, k and v, each [window, channels].
    """

    place: str
    q: str
    k: str
    v: str
    out: str
    tables: tuple[str, str, str]


@dataclass(frozen=True)
class UNetSplit:
    """One UNet, cut at its temporal attentions: one segment more than attentions.

    Attributes:
        tensors: in the order in which they are written.
    """

    segments: tuple[Segment, ...]
    attentions: tuple[AttentionCut, ...]
    tensors: tuple[CrossingTensor, ...]

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.attentions) + 1:
            raise ValueError(f"{len(self.segments)} segments do not enclose {len(self.attentions)} attentions")

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """Names of the UNet's inputs that segments read, in the order in which they are met."""
        crossing = {tensor.name for tensor in self.tensors}
        met = dict.fromkeys(name for segment in self.segments for name in segment.inputs)
        return tuple(name for name in met if name not in crossing)

    def tensor(self, name: str) -> CrossingTensor:
        """Return a crossing tensor; raise KeyError if none has that name."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` reads them back to an equal split."""
        return {
            "segments": [asdict(segment) for segment in self.segments],
            "attentions": [asdict(attention) for attention in self.attentions],
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> UNetSplit:
        """Read what ``to_json`` wrote; raise KeyError, TypeError or ValueError where it does not describe a split."""
        return cls(
            tuple(
                Segment(entry["name"], tuple(entry["inputs"]), tuple(entry["outputs"])) for entry in values["segments"]
            ),
            tuple(AttentionCut(**{**entry, "tables": tuple(entry["tables"])}) for entry in values["attentions"]),
            tuple(CrossingTensor(**{**entry, "row_shape": tuple(entry["row_shape"])}) for entry in values["tensors"]),
        )
