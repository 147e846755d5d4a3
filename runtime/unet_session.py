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
from live2diff_trt.runtime.split_unet import SplitForm, SplitUNet
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
) -> UNetSession:
    """Open every plan, and allocate what the UNet needs. ``measured`` is what ``know_plans`` gave."""
    with ExitStack() as opened:
        memory = opened.enter_context(DeviceMemory(device_id))
        runtime_cache = facts.load_runtime_cache()
        runtime = opened.enter_context(PlanRuntime(flavour, runtime_cache))
        plans = {name: runtime.open(name, stored.plan_bytes(name)) for name in stored.manifest.plans}
        if runtime_cache is None:  # it was lost after the plans were measured
            keep_runtime_cache(runtime, facts)
        _share_scratch(memory, plans, shared_scratch(measured))
        kernels = Kernels.load(memory.device)
        key = stored.manifest.key
        constants = TickConstants(memory, spec)
        ring = DeviceKvRing(memory, spec, ring_rows(spec, key.rows))
        conditions = DeviceConditions(memory, plans, spec, key.rows, key.rows if key.form == "split" else spec.sink)
        unet = _open_form(memory, plans, kernels, spec, stored, ring, conditions, constants)
        conditions.set_steps(make_step_table(spec.step_list, spec.schedule).timesteps)
        opened.pop_all()  # from here on the session closes them
    return UNetSession(memory, runtime, plans, kernels, constants, ring, conditions, unet)


def shared_scratch(measured: Mapping[str, Any]) -> int:
    """Return what the greediest plan takes, in bytes."""
    return int(max(measured["scratch_bytes"].values()))


def _share_scratch(memory: DeviceMemory, plans: dict[str, Plan], size: int) -> None:
    """Plans run one after the other on one stream, so one block serves them all."""
    address = memory.allocate("scratch", size)
    for plan in plans.values():
        plan.use_scratch(address, size)


def _open_form(
    memory: DeviceMemory,
    plans: dict[str, Plan],
    kernels: Kernels,
    spec: StreamSpec,
    stored: StoredPlans,
    ring: DeviceKvRing,
    conditions: DeviceConditions,
    constants: TickConstants,
) -> DeviceUNet:
    split, arena, rows = stored.split, stored.arena, stored.manifest.key.rows
    if split is None or arena is None:
        return WholeUNet(memory, plans, kernels, spec, rows, ring, conditions, constants.parameters)
    form = SplitForm(split, arena, rows, stored.constants())
    return SplitUNet(memory, plans, kernels, spec, form, ring, conditions, constants.parameters)


def ring_rows(spec: StreamSpec, rows: int) -> int:
    """Return how many rows the ring holds: whole chunks, since a plan in the whole form reads those."""
    return -(-spec.steps // rows) * rows


def know_plans(stored: StoredPlans, flavour: Flavour, facts: GpuFacts) -> dict[str, Any]:
    """Return the plans' memory, as it was measured when they were first opened on this GPU: now, if that was never."""
    measured = facts.load_measured()
    return measured if "scratch_bytes" in measured else _measure_plans(stored, flavour, facts)


def _measure_plans(stored: StoredPlans, flavour: Flavour, facts: GpuFacts) -> dict[str, Any]:
    """Open every plan once, one after the other, to learn its memory; RTX compiles its kernels meanwhile."""
    logger.info("opening these plans on this GPU for the first time; it takes a minute, once")
    scratch: dict[str, int] = {}
    weights: dict[str, int] = {}
    with PlanRuntime(flavour, facts.load_runtime_cache()) as runtime:
        for name in stored.manifest.plans:
            plan = runtime.open(name, stored.plan_bytes(name))
            scratch[name], weights[name] = plan.scratch_bytes, plan.weight_bytes
            plan.close()
        keep_runtime_cache(runtime, facts)
    measured = {"scratch_bytes": scratch, "weight_bytes": weights}
    facts.save_measured(measured)
    return measured


def keep_runtime_cache(runtime: PlanRuntime, facts: GpuFacts) -> None:
    """Keep what RTX compiled, so that the next process need not."""
    cache = runtime.serialise_cache()
    if cache is not None:
        facts.save_runtime_cache(cache)
