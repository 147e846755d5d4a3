"""Which process of the suite has which GPU: each sees one alone, and what a point needs is made where it is measured.

TensorRT-RTX keeps the kernels that it compiles by the card: plans that were opened on one GPU open slowly on another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def see_one_gpu(index: int) -> dict[str, str]:
    """Return the variables of a process that sees one GPU alone: of those that this one sees, that with an index."""
    visible = os.environ.get(_VISIBLE)
    return {_VISIBLE: str(index) if visible is None else visible.split(",")[index]}


def share_gpus(loads: Sequence[float], gpus: int) -> list[int]:
    """Return the index of a GPU for each load, in order: of the one with the least so far, of equals the first."""
    taken = [0.0] * gpus
    chosen: list[int] = []
    for load in loads:
        index = taken.index(min(taken))
        taken[index] += load
        chosen.append(index)
    return chosen
