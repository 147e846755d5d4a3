"""The UNet of one session on the GPU, and what it needs: opened plans, kernels, ring, conditions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu_facts import GpuFacts
from live2diff_trt.engine.plan import Plan, PlanRuntime
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_ring import DeviceKvRing
from live2diff_trt.runtime.device_unet import DeviceUNet
from live2diff_trt.runtime.lanes import PRIORITIES, LaneName, lane_of
from live2diff_trt.runtime.plan_threads import call_per_plan
from live2diff_trt.runtime.split_unet import SplitForm, SplitUNet, most_rows, roomy_arena
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.tick import TickConstants
from live2diff_trt.runtime.whole_unet import WholeUNet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UNetSession:
    """The UNet on a GPU, with all it needs: what a stream and a comparison have in common.

    Attributes:
        plans: every plan of the set, opened, by name.
    """

    memory: DeviceMemory
    runtime: PlanRuntime
    plans: Mapping[str, Plan]
    kernels: Kernels
    constants: TickConstants
    ring: DeviceKvRing
    conditions: DeviceConditions
    unet: DeviceUNet

    def set_rows(self, spec: StreamSpec, rows: StreamRows) -> None:
        """Compute what depends on the denoising steps alone, and count frames in these rows. Waits for the device."""
        table = make_step_table(spec.step_list, spec.schedule)
        self.constants.set_steps(table)
        self.conditions.set_rows(table.timesteps, rows)
        self.ring.count_rows(rows.count)

    def close(self) -> None:
        """Free everything, what was built last first."""
        self.memory.device.set_current()
        self.memory.stream.sync()
        self.conditions.close()
        self.runtime.close()
        self.memory.close()


def open_unet(
    spec: StreamSpec,
    stored: StoredPlans,
    flavour: Flavour,
    facts: GpuFacts,
    measured: Mapping[str, Any],
    device_id: int,
    *,
    rows: StreamRows,
    room: StreamRoom,
    overlap: bool,
) -> UNetSession:
    """Open every plan, and allocate what the UNet needs.

    Args:
        spec: the stream.
        rows: of the UNet, to begin with.
        room: for which others.
        stored: the plans.
        flavour: what they were built with.
        facts: of this GPU.
        measured: what ``know_plans`` gave.
        device_id: number of the CUDA device.
        overlap: whether plans of different lanes will run at the same time.
    """
    with ExitStack() as opened:
        memory = opened.enter_context(DeviceMemory(device_id, PRIORITIES["denoise"]))
        runtime = opened.enter_context(PlanRuntime(flavour, facts.load_runtime_caches()))
        plans = _open_plans(runtime, stored, device_id)
        keep_runtime_caches(runtime, facts)
        _share_scratch(memory, plans, measured, overlap=overlap)
        kernels = Kernels.load(memory.device)
        key = stored.manifest.key
        constants = TickConstants(memory)
        ring = DeviceKvRing(memory, spec, whole_chunks(room.unet_rows, key.rows))
        warm_up_rows = key.rows if key.form == "split" else spec.sink
        conditions = DeviceConditions(memory, plans, spec, room, key.rows, warm_up_rows)
        unet = _open_form(memory, plans, kernels, spec, rows, room, stored, ring, conditions, constants)
        session = UNetSession(memory, runtime, plans, kernels, constants, ring, conditions, unet)
        session.set_rows(spec, rows)
        opened.pop_all()  # from here on the session closes them
    return session


def _open_plans(runtime: PlanRuntime, stored: StoredPlans, device_id: int) -> dict[str, Plan]:
    return call_per_plan(lambda name: stored.open_plan(name, runtime), stored.manifest.plans, device_id)


def lane_scratch(measured: Mapping[str, Any], *, overlap: bool) -> dict[LaneName, int]:
    """Return what the greediest plan of each lane takes, in bytes."""
    sizes: dict[LaneName, int] = {}
    for plan, size in measured["scratch_bytes"].items():
        lane = lane_of(plan, overlap=overlap)
        sizes[lane] = max(sizes.get(lane, 1), int(size))
    return sizes


def _share_scratch(
    memory: DeviceMemory, plans: Mapping[str, Plan], measured: Mapping[str, Any], *, overlap: bool
) -> None:
    """Plans of a lane run one after the other, so one block serves them all."""
    sizes = lane_scratch(measured, overlap=overlap)
    blocks = {lane: memory.allocate("scratch", size) for lane, size in sizes.items()}
    for name, plan in plans.items():
        lane = lane_of(name, overlap=overlap)
        plan.use_scratch(blocks[lane], sizes[lane])


def _open_form(
    memory: DeviceMemory,
    plans: dict[str, Plan],
    kernels: Kernels,
    spec: StreamSpec,
    rows: StreamRows,
    room: StreamRoom,
    stored: StoredPlans,
    ring: DeviceKvRing,
    conditions: DeviceConditions,
    constants: TickConstants,
) -> DeviceUNet:
    split, arena, chunk_rows = stored.split, stored.arena, stored.manifest.key.rows
    needs = ring, conditions, constants.parameters
    if split is None or arena is None:
        return WholeUNet(memory, plans, kernels, spec, rows, room.unet_rows, chunk_rows, *needs)
    arena = roomy_arena(arena, split, spec, room, chunk_rows)
    form = SplitForm(split, arena, chunk_rows, most_rows(spec, room), stored.constants())
    return SplitUNet(memory, plans, kernels, spec, form, rows, *needs)


def whole_chunks(unet_rows: int, rows: int) -> int:
    """Return how many rows the ring holds: whole chunks, since a plan in the whole form reads those."""
    return -(-unet_rows // rows) * rows


def know_plans(stored: StoredPlans, flavour: Flavour, facts: GpuFacts, device_id: int) -> dict[str, Any]:
    """Return the plans' memory, as it was measured when they were first opened on this GPU: now, if that was never."""
    measured = facts.load_measured()
    return measured if "scratch_bytes" in measured else _measure_plans(stored, flavour, facts, device_id)


def _measure_plans(stored: StoredPlans, flavour: Flavour, facts: GpuFacts, device_id: int) -> dict[str, Any]:
    """Open every plan once, and close it again, to learn its memory; RTX compiles its kernels meanwhile."""
    logger.info("opening these plans on this GPU for the first time; it takes a minute, once")
    with PlanRuntime(flavour, facts.load_runtime_caches()) as runtime:

        def measure(name: str) -> tuple[int, int]:
            plan = stored.open_plan(name, runtime)
            plan.close()
            return plan.scratch_bytes, plan.weight_bytes

        sizes = call_per_plan(measure, stored.manifest.plans, device_id)
        keep_runtime_caches(runtime, facts)
    measured = {
        "scratch_bytes": {name: scratch for name, (scratch, _) in sizes.items()},
        "weight_bytes": {name: weights for name, (_, weights) in sizes.items()},
    }
    facts.save_measured(measured)
    return measured


def keep_runtime_caches(runtime: PlanRuntime, facts: GpuFacts) -> None:
    """Keep what RTX compiled, if it did, so that the next process need not."""
    if runtime.compiles:
        facts.save_runtime_caches(runtime.serialise_caches())
