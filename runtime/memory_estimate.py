"""What a session will take of a GPU's memory, before anything of it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan_manifest import KEPT_PLANS
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.runtime.cut_kernels import KERNEL_CONSTANTS, STATISTICS, constant_layout, statistics_layout
from live2diff_trt.runtime.device_conditions import condition_layouts
from live2diff_trt.runtime.device_frames import SOURCE_BYTES
from live2diff_trt.runtime.device_guidance import guidance_layout
from live2diff_trt.runtime.device_ring import ring_layout, sink_layout, table_layout
from live2diff_trt.runtime.device_stages import stage_layout
from live2diff_trt.runtime.device_unet import row_layout
from live2diff_trt.runtime.errors import DeviceMemoryError
from live2diff_trt.runtime.newest_frames import newest_layout
from live2diff_trt.runtime.split_unet import most_rows, roomy_arena
from live2diff_trt.runtime.stream_rows import StreamRoom
from live2diff_trt.runtime.tick import constants_layout
from live2diff_trt.runtime.unet_session import lane_scratch, whole_chunks
from live2diff_trt.runtime.whole_unet import whole_parts


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of one session, in bytes.

    Attributes:
        shared: purpose → bytes of what all sessions on the same plans have once.
        own: purpose → bytes of what each session has for itself.
        overhead: of the driver, its context and the loaded kernels; measured once for each flavour and GPU.
    """

    shared: Mapping[str, int]
    own: Mapping[str, int]
    overhead: int

    @property
    def parts(self) -> dict[str, int]:
        """Purpose → bytes of what is allocated, by TensorRT too."""
        return {**self.shared, **self.own}

    @property
    def of_one_more(self) -> MemoryEstimate:
        """What a session takes beside others on the same plans."""
        return MemoryEstimate({}, self.own, overhead=0)

    @property
    def allocated(self) -> int:
        """Bytes without the overhead."""
        return sum(self.parts.values())

    @property
    def total(self) -> int:
        """By how much the GPU's free memory falls."""
        return self.allocated + self.overhead

    def describe(self) -> str:
        """Return the breakdown, largest first."""
        parts = sorted({**self.parts, "driver and kernels": self.overhead}.items(), key=lambda part: -part[1])
        return ", ".join(f"{purpose} {size / 1e6:,.0f} MB" for purpose, size in parts if size >= 500_000)

    def refuse_unless_free(self, free: int, spec: StreamSpec, *, overhead_is_there: bool) -> None:
        """Raise DeviceMemoryError, with the breakdown, unless ``free`` bytes are enough.

        Args:
            free: on the device, in bytes.
            spec: the stream.
            overhead_is_there: whether the process has its context already, so that ``free`` is without it.
        """
        needed = self.allocated if overhead_is_there else self.total
        if needed <= free:
            return
        raise DeviceMemoryError(
            f"{spec.width}x{spec.height} with T = {spec.steps} takes {needed / 1e9:.2f} GB of GPU memory, "
            f"{free / 1e9:.2f} GB are free: {self.describe()}",
            "Use fewer steps (--step-list, max_steps) or guidance of fewer rows, export a smaller --size, or end what "
            "else runs on that GPU",
        )


def estimate_session(
    spec: StreamSpec,
    stored: StoredPlans,
    measured: Mapping[str, Any],
    *,
    room: StreamRoom,
    overlap: bool,
    weight_sets: int = 1,
) -> MemoryEstimate:
    """Add up what opening a session allocates, from the layouts that the session itself uses.

    Args:
        spec: the stream.
        stored: the plans.
        measured: what the first opening on this GPU found out about them.
        room: for how many steps, and which kinds of guidance.
        overlap: whether each lane has scratch memory of its own.
        weight_sets: how many times what a style replaces is there.
    """
    rows = stored.manifest.key.rows
    in_chunks = whole_chunks(room.unet_rows, rows)
    warm_up_rows = rows if stored.split is not None else spec.sink
    shared = {"weights": sum(measured["weight_bytes"].values()), **_constant_parts(spec, stored)}
    styled = sum(size for name, size in measured["weight_bytes"].items() if name not in KEPT_PLANS)
    for purpose, size in shared.items():
        shared[purpose] = size + (weight_sets - 1) * (styled if purpose == "weights" else size)
    tables = table_layout(spec.kv_caches, in_chunks).nbytes + sink_layout(spec.kv_caches, in_chunks).nbytes
    own = {
        "scratch": sum(lane_scratch(measured, overlap=overlap).values()),
        "kv-cache ring": ring_layout(spec, in_chunks).nbytes + tables,
        "conditions": sum(layout.nbytes for layout in condition_layouts(spec, room, rows, warm_up_rows).values()),
        "pictures": stage_layout(spec).nbytes,
        "newest frames": newest_layout(spec).nbytes,
        "constants": constants_layout().nbytes,
        "source picture": SOURCE_BYTES,
        **_unet_parts(spec, room, stored, rows),
    }
    if guidance := guidance_layout(spec, room).nbytes:
        own["guidance"] = guidance
    return MemoryEstimate(shared, own, measured.get("overhead_bytes", 0))


def _constant_parts(spec: StreamSpec, stored: StoredPlans) -> dict[str, int]:
    if stored.split is None or not stored.split.constants:
        return {}
    return {KERNEL_CONSTANTS: constant_layout(stored.split, stored.constants, spec.dtype).nbytes}


def _unet_parts(spec: StreamSpec, room: StreamRoom, stored: StoredPlans, rows: int) -> dict[str, int]:
    split, arena = stored.split, stored.arena
    if split is None or arena is None:
        return whole_parts(spec, room.unet_rows, rows)
    return {
        "arena": roomy_arena(arena, split, spec, room, rows).bytes,
        "rows": row_layout(spec, most_rows(spec, room), rows).nbytes,
        STATISTICS: statistics_layout(split, most_rows(spec, room)).nbytes,
    }
