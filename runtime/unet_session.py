"""The UNet of one session on the GPU, and what it needs: opened plans, kernels, ring, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan import Plan
from live2diff_trt.engine.plan_manifest import KEPT_PLANS
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_ring import DeviceKvRing
from live2diff_trt.runtime.device_unet import DeviceUNet
from live2diff_trt.runtime.lanes import PRIORITIES, LaneName, lane_of
from live2diff_trt.runtime.opened_plans import OpenedPlans
from live2diff_trt.runtime.split_unet import SplitForm, SplitUNet, most_rows, roomy_arena
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.tick import TickConstants
from live2diff_trt.runtime.whole_unet import WholeUNet


@dataclass(frozen=True)
class UNetSession:
    """The UNet on a GPU, with all it needs: what a stream and a comparison have in common.

    Attributes:
        opened: the plans that it shares with others.
        held: keeps them open.
        plans: its own context of every plan, by name.
        scratch: address and size of the scratch memory that a plan shares with others of its lane, by plan.
    """

    memory: DeviceMemory
    opened: OpenedPlans
    held: ExitStack
    plans: Mapping[str, Plan]
    scratch: Mapping[str, tuple[int, int]]
    constants: TickConstants
    ring: DeviceKvRing
    conditions: DeviceConditions
    unet: DeviceUNet

    @property
    def kernels(self) -> Kernels:
        """Of the device."""
        return self.opened.kernels

    def set_rows(self, spec: StreamSpec, rows: StreamRows) -> None:
        """Compute what depends on the denoising steps alone, and count frames in these rows. Waits for the device."""
        table = make_step_table(spec.step_list, spec.schedule)
        self.constants.set_steps(table)
        self.conditions.set_rows(table.timesteps, rows)
        self.ring.count_rows(rows.count)

    def rehearse(self) -> None:
        """Run what a style replaces once where it is bound, over what was computed last, so that all is loaded.

        No plan may run meanwhile. Waits for the device.
        """
        for name, plan in self.plans.items():
            if name not in KEPT_PLANS and plan.is_bound:
                plan.enqueue(int(self.memory.stream.handle))
        self.memory.stream.sync()
        self.opened.weights.must_rehearse = False

    def close_plans(self) -> None:
        """Close the contexts, and let go of what others may share. Nothing of them may be on its way."""
        for plan in self.plans.values():
            plan.close()
        self.held.close()

    def close(self) -> None:
        """Free everything, what was built last first."""
        self.memory.device.set_current()
        self.memory.stream.sync()
        self.conditions.close()
        self.close_plans()
        self.memory.close()


def open_unet(
    spec: StreamSpec, opened: OpenedPlans, *, rows: StreamRows, room: StreamRoom, overlap: bool
) -> UNetSession:
    """Make a context of every plan, and allocate what the UNet needs.

    Args:
        spec: the stream.
        opened: the plans. The session holds them.
        rows: of the UNet, to begin with.
        room: for which others.
        overlap: whether plans of different lanes will run at the same time.
    """
    with ExitStack() as opening:
        memory = opening.enter_context(DeviceMemory(opened.device_id, PRIORITIES["denoise"]))
        held = opening.enter_context(opened.hold())
        plans = opened.open_contexts()
        for plan in plans.values():
            opening.callback(plan.close)
        scratch = _share_scratch(memory, plans, opened.measured, overlap=overlap)
        key = opened.stored.manifest.key
        constants = TickConstants(memory)
        ring = DeviceKvRing(memory, spec, whole_chunks(room.unet_rows, key.rows))
        warm_up_rows = key.rows if key.form == "split" else spec.sink
        conditions = DeviceConditions(memory, plans, spec, room, key.rows, warm_up_rows)
        opening.callback(conditions.close)
        unet = _open_form(memory, opened, plans, spec, rows, room, ring, conditions, constants)
        session = UNetSession(memory, opened, held, plans, scratch, constants, ring, conditions, unet)
        session.set_rows(spec, rows)
        opening.pop_all()  # from here on the session closes them
    return session


def lane_scratch(measured: Mapping[str, Any], *, overlap: bool) -> dict[LaneName, int]:
    """Return what the greediest plan of each lane takes, in bytes."""
    sizes: dict[LaneName, int] = {}
    for plan, size in measured["scratch_bytes"].items():
        lane = lane_of(plan, overlap=overlap)
        sizes[lane] = max(sizes.get(lane, 1), int(size))
    return sizes


def _share_scratch(
    memory: DeviceMemory, plans: Mapping[str, Plan], measured: Mapping[str, Any], *, overlap: bool
) -> dict[str, tuple[int, int]]:
    """Plans of a lane run one after the other, so one block serves them all; return each plan's address and size."""
    sizes = lane_scratch(measured, overlap=overlap)
    blocks = {lane: memory.allocate("scratch", size) for lane, size in sizes.items()}
    lanes = {name: lane_of(name, overlap=overlap) for name in plans}
    scratch = {name: (blocks[lane], sizes[lane]) for name, lane in lanes.items()}
    for name, plan in plans.items():
        plan.use_scratch(*scratch[name])
    return scratch


def _open_form(
    memory: DeviceMemory,
    opened: OpenedPlans,
    plans: Mapping[str, Plan],
    spec: StreamSpec,
    rows: StreamRows,
    room: StreamRoom,
    ring: DeviceKvRing,
    conditions: DeviceConditions,
    constants: TickConstants,
) -> DeviceUNet:
    stored, kernels = opened.stored, opened.kernels
    split, arena, chunk_rows = stored.split, stored.arena, stored.manifest.key.rows
    needs = ring, conditions, constants.parameters
    if split is None or arena is None:
        return WholeUNet(memory, plans, kernels, spec, rows, room.unet_rows, chunk_rows, *needs)
    arena = roomy_arena(arena, split, spec, room, chunk_rows)
    form = SplitForm(split, arena, chunk_rows, most_rows(spec, room), opened.constants)
    return SplitUNet(memory, plans, kernels, spec, form, rows, *needs)


def whole_chunks(unet_rows: int, rows: int) -> int:
    """Return how many rows the ring holds: whole chunks, since a plan in the whole form reads those."""
    return -(-unet_rows // rows) * rows
