"""The split form of the UNet as plain data: segments, what kernels compute between them, and the tensors that cross.

Execution is a line of steps: segment i is step 2·i, cut i is step 2·i + 1. ``engine/split_graph.py`` makes a
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
        view_of: the tensor whose memory this is: the same picture as tokens, or the other way round. Empty for what
            has memory of its own.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: FloatName
    first: int
    last: int
    channels_last: bool = False
    packed_in: str = ""
    part: int = 0
    view_of: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, dense."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @property
    def owns_memory(self) -> bool:
        """Whether it needs a place of its own."""
        return not self.packed_in and not self.view_of


@dataclass(frozen=True)
class Segment:
    """A piece of the UNet that is one plan: products, convolutions and what TensorRT fuses into them.

    It treats rows as independent.

    Attributes:
        inputs: inputs of the UNet that it reads, then crossing tensors. outputs: crossing tensors. In either, none that
            is packed in another; no output is a view of another.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class TemporalAttentionCut:
    """A frame's attention to the past, between two segments.

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

    @property
    def constants(self) -> tuple[str, ...]:
        """Initialisers that the kernel reads."""
        return self.tables


@dataclass(frozen=True)
class SpatialAttentionCut:
    """Attention among the positions of one frame, or from them to the prompt.

    Attributes:
        q, out: crossing tensors, each row [positions, channels].
        k, v: crossing tensors, packed with q in one; or inputs of the UNet, [rows, tokens, channels].
        heads: of the channels.
        to_prompt: whether k and v are those inputs.
    """

    q: str
    k: str
    v: str
    out: str
    heads: int
    to_prompt: bool

    @property
    def constants(self) -> tuple[str, ...]:
        """Initialisers that the kernel reads: none."""
        return ()


@dataclass(frozen=True)
class GroupNormCut:
    """A group norm, with what is added before it and SiLU behind it.

    Attributes:
        x, out: crossing tensors.
        scale, bias: initialisers, [channels].
        row_bias: the input of the UNet, [rows, channels], that is added to x first; empty: none.
        groups, epsilon: of the norm.
        silu: whether x·sigmoid(x) follows.
    """

    x: str
    out: str
    scale: str
    bias: str
    row_bias: str
    groups: int
    epsilon: float
    silu: bool

    @property
    def constants(self) -> tuple[str, ...]:
        """Initialisers that the kernel reads."""
        return self.scale, self.bias


@dataclass(frozen=True)
class GatedGeluCut:
    """GEGLU's activation: the first half of the channels times GELU of the second (Shazeer, arXiv 2002.05202).

    Attributes:
        x: crossing tensor, each row [positions, 2 · width]. out: each row [positions, width].
    """

    x: str
    out: str

    @property
    def constants(self) -> tuple[str, ...]:
        """Initialisers that the kernel reads: none."""
        return ()


@dataclass(frozen=True)
class ViewCut:
    """Where a segment's tokens are a picture for the next segment, or the other way round. Nothing is computed.

    Inside one segment the change would be a copy, and keep TensorRT from fusing what is round it.

    Attributes:
        x: crossing tensor. out: the view of it.
    """

    x: str
    out: str

    @property
    def constants(self) -> tuple[str, ...]:
        """Initialisers that are read: none."""
        return ()


Cut = TemporalAttentionCut | SpatialAttentionCut | GroupNormCut | GatedGeluCut | ViewCut
AttentionCut = TemporalAttentionCut | SpatialAttentionCut

_KINDS: dict[str, type[Cut]] = {
    "temporal_attention": TemporalAttentionCut,
    "spatial_attention": SpatialAttentionCut,
    "group_norm": GroupNormCut,
    "gated_gelu": GatedGeluCut,
    "view": ViewCut,
}


@dataclass(frozen=True)
class UNetSplit:
    """One UNet, cut where kernels of ours compute: one segment more than cuts.

    Attributes:
        tensors: in the order in which they are written.
    """

    segments: tuple[Segment, ...]
    cuts: tuple[Cut, ...]
    tensors: tuple[CrossingTensor, ...]

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.cuts) + 1:
            raise ValueError(f"{len(self.segments)} segments do not enclose {len(self.cuts)} cuts")

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """Names of the UNet's inputs that segments and kernels read, in the order in which segments meet them."""
        crossing = {tensor.name for tensor in self.tensors}
        read = [name for segment in self.segments for name in segment.inputs]
        read += [name for cut in self.cuts for name in inputs_of(cut)]
        return tuple(name for name in dict.fromkeys(read) if name not in crossing)

    @property
    def temporal_attentions(self) -> tuple[TemporalAttentionCut, ...]:
        """The cuts that look at the past."""
        return tuple(cut for cut in self.cuts if isinstance(cut, TemporalAttentionCut))

    @property
    def constants(self) -> tuple[str, ...]:
        """Initialisers that kernels read, each once."""
        return tuple(dict.fromkeys(name for cut in self.cuts for name in cut.constants))

    def tensor(self, name: str) -> CrossingTensor:
        """Return a crossing tensor; raise KeyError if none has that name."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` reads them back to an equal split."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        return {
            "segments": [asdict(segment) for segment in self.segments],
            "cuts": [{"kind": kinds[type(cut)], **asdict(cut)} for cut in self.cuts],
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> UNetSplit:
        """Read what ``to_json`` wrote; raise KeyError, TypeError or ValueError where it does not describe a split."""
        return cls(
            tuple(
                Segment(entry["name"], tuple(entry["inputs"]), tuple(entry["outputs"])) for entry in values["segments"]
            ),
            tuple(_read_cut(entry) for entry in values["cuts"]),
            tuple(CrossingTensor(**{**entry, "row_shape": tuple(entry["row_shape"])}) for entry in values["tensors"]),
        )


def packed_name(cut: Cut) -> str:
    """Return the name of what a cut's q, k and v are packed in; empty where they are not."""
    if isinstance(cut, TemporalAttentionCut):
        return f"qkv.{cut.place}"
    return f"qkv.{cut.out}" if isinstance(cut, SpatialAttentionCut) and not cut.to_prompt else ""


def inputs_of(cut: Cut) -> tuple[str, ...]:
    """Return what a kernel reads beside constants and caches: crossing tensors, and inputs of the UNet."""
    if isinstance(cut, GroupNormCut):
        return (cut.x, cut.row_bias) if cut.row_bias else (cut.x,)
    return (cut.q, cut.k, cut.v) if isinstance(cut, AttentionCut) else (cut.x,)


def _read_cut(entry: dict[str, Any]) -> Cut:
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in entry.items()}
    kind: Any = _KINDS[values.pop("kind")]
    cut: Cut = kind(**values)
    return cut
