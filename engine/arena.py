"""Packs the tensors that cross the UNet's cuts into one block of memory: those never alive together share bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from live2diff_trt.engine.split import PACKED_PARTS, CrossingTensor, UNetSplit

ALIGNMENT_BYTES = 256
"""What TensorRT asks of a binding's address."""


@dataclass(frozen=True)
class Lifetime:
    """How many bytes a tensor takes, and from which step to which, both included."""

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both are alive in some step. A step reads its inputs while it writes its outputs."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each tensor lies.

    Attributes:
        offsets: tensor → bytes from the start of the block.
        bytes: size of the block.
    """

    offsets: Mapping[str, int]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` reads them back to an equal arena."""
        return {"offsets": dict(self.offsets), "bytes": self.bytes}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Arena:
        """Read what ``to_json`` wrote; raise KeyError or TypeError where it is something else."""
        return cls(dict(values["offsets"]), values["bytes"])


def arena_of(split: UNetSplit, rows_per_chunk: int, chunks: int) -> Arena:
    """Plan the block for ``chunks`` chunks of rows; a tensor's chunks lie ``chunk_stride_bytes`` apart."""
    arena = plan_arena(lifetimes_of(split, rows_per_chunk, chunks))
    parts = {
        tensor.name: arena.offsets[tensor.packed_in] + tensor.part * rows_per_chunk * tensor.row_bytes
        for tensor in split.tensors
        if tensor.packed_in
    }
    views = {tensor.name: arena.offsets[tensor.view_of] for tensor in split.tensors if tensor.view_of}
    return Arena({**arena.offsets, **parts, **views}, arena.bytes)


def lifetimes_of(split: UNetSplit, rows_per_chunk: int, chunks: int) -> list[Lifetime]:
    """Return what ``arena_of`` packs: every tensor but the parts of others and views of them."""
    return [
        Lifetime(tensor.name, chunks * chunk_stride_bytes(tensor, rows_per_chunk), tensor.first, tensor.last)
        for tensor in split.tensors
        if tensor.owns_memory
    ]


def chunk_stride_bytes(tensor: CrossingTensor, rows_per_chunk: int) -> int:
    """Bytes from one chunk of a tensor to the next. Inside a chunk rows are dense; every chunk starts aligned.

    A chunk of q is followed by that of k and that of v, so for these it is a chunk of all three.
    """
    parts = PACKED_PARTS if tensor.packed_in else 1
    return _round_up(parts * rows_per_chunk * tensor.row_bytes, ALIGNMENT_BYTES)


def plan_arena(lifetimes: Sequence[Lifetime], alignment: int = ALIGNMENT_BYTES) -> Arena:
    """Give every tensor an offset, a multiple of ``alignment``, so that no two of them meet in time and in memory.

    Greedy: the largest first, each into the smallest gap it fits between those it meets. The same input gives the same
    arena.
    """
    placed: list[tuple[Lifetime, int]] = []
    for lifetime in sorted(lifetimes, key=lambda one: (-one.bytes, one.first, one.name)):
        taken = sorted((offset, offset + other.bytes) for other, offset in placed if other.meets(lifetime))
        placed.append((lifetime, _find_offset(taken, lifetime.bytes, alignment)))
    offsets = {lifetime.name: offset for lifetime, offset in placed}
    ends = (offset + lifetime.bytes for lifetime, offset in placed)
    return Arena({one.name: offsets[one.name] for one in lifetimes}, _round_up(max(ends, default=0), alignment))


def _find_offset(taken: Iterable[tuple[int, int]], size: int, alignment: int) -> int:
    """Return the start of the smallest gap of ``size`` bytes between ranges sorted by start, or where they all end."""
    gaps: list[tuple[int, int]] = []
    end = 0
    for start, stop in taken:
        if start - end >= size:
            gaps.append((start - end, end))
        end = max(end, _round_up(stop, alignment))
    return min(gaps)[1] if gaps else end


def peak_bytes(lifetimes: Iterable[Lifetime]) -> int:
    """Return the most bytes that are alive in one step: no arena can be smaller."""
    lifetimes = list(lifetimes)
    # A sum only grows where something starts to live.
    return max(
        (sum(one.bytes for one in lifetimes if one.first <= step.first <= one.last) for step in lifetimes), default=0
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
