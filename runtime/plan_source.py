"""Where plans on a GPU come from: a bundle's own, and those that are built with a style's weights in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from cuda.core import Stream

from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu_facts import GpuFacts
from live2diff_trt.engine.plan import LoadedPlan, Plan, PlanRuntime
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.plan_threads import call_per_plan

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PlanSource:
    """What all sets of the same plans have in common.

    Attributes:
        stored: the bundle's own plans.
        flavour: what built them.
        runtime: that loads them.
        facts: of this GPU.
        kernels: of the device.
        dtype: of the stream.
        making_contexts: for whoever makes contexts of plans of this runtime.
    """

    stored: StoredPlans
    flavour: Flavour
    runtime: PlanRuntime
    facts: GpuFacts
    kernels: Kernels
    dtype: str
    making_contexts: Lock

    def load(self, names: Iterable[str], device_id: int, owned: ExitStack) -> dict[str, LoadedPlan]:
        """Load the bundle's own plans, by name; ``owned`` closes them."""

        def load(name: str) -> LoadedPlan:
            plan = self.stored.load_plan(name, self.runtime)
            owned.callback(plan.close)
            return plan

        return call_per_plan(load, names, device_id)

    def open_contexts(self, plans: Mapping[str, LoadedPlan], device_id: int) -> dict[str, Plan]:
        """Make an execution context of plans, each in its own thread; what RTX compiled for them is kept for later.

        Raises:
            PlanError: if TensorRT refuses one; the others are closed then.
        """
        made: list[Plan] = []

        def open_one(name: str) -> Plan:
            plan = plans[name].open()
            made.append(plan)
            return plan

        # One stream at a time: of a plan, TensorRT is asked for one context at a time; RTX's caches are read at rest.
        with self.making_contexts:
            try:
                contexts = call_per_plan(open_one, plans, device_id)
                keep_runtime_caches(self.runtime, self.facts)
            except BaseException:
                for plan in made:
                    plan.close()
                raise
        return contexts

    def build(self, weights: StyledWeights, names: Collection[str], check: Callable[[], None]) -> StoredPlans:
        """Build plans with a style's weights, or find those that were built before, as ``build_style_plans`` does."""
        from live2diff_trt.engine.style_plans import build_style_plans  # needs onnx

        key = self.stored.manifest.key
        return build_style_plans(weights, names, key, self.flavour, self.stored.store, key.target, check)

    def reload(
        self,
        plans: Mapping[str, LoadedPlan],
        stored: StoredPlans,
        contexts: Mapping[str, Plan],
        memory: DeviceMemory,
        stream: Stream,
    ) -> None:
        """Let plans be what is stored under their names; what they were before is freed, and must not be in use.

        Args:
            plans: by name.
            stored: holds others of the same graphs.
            contexts: of these plans, and of others: at most one of each plan, and no other is open.
            memory: in which a context that wants more scratch memory than it has is given its own.
            stream: in whose order that is zeroed.

        Raises:
            PlanStoreError: if a file is gone.
            PlanError: if TensorRT refuses one.
            BackendError: if there is no memory for what one needs.
        """
        started = time.perf_counter()
        opened = {name: contexts[name] for name in plans.keys() & contexts.keys()}

        def reload_one(name: str) -> None:
            stored.reload_plan(plans[name], self.runtime, [opened[name]] if name in opened else [])

        with self.making_contexts:
            call_per_plan(reload_one, plans, memory.device_id)
            keep_runtime_caches(self.runtime, self.facts)
        for context in opened.values():
            give_scratch(context, context.scratch, memory, stream)
        logger.info("%d plans loaded in the place of others in %.2f s", len(plans), time.perf_counter() - started)


def give_scratch(plan: Plan, block: tuple[int, int], memory: DeviceMemory, stream: Stream | None = None) -> None:
    """Let a plan use scratch memory that others use too, or, if it wants more than that, some of its own.

    Args:
        plan: a context.
        block: address and size of what others use.
        memory: in which its own is allocated, zeroed in the order of ``stream``, the memory's own if not given.
        stream: of those that the plan will run on, or before.
    """
    address, size = block
    if plan.scratch_bytes > size:
        size = plan.scratch_bytes
        address = memory.allocate("scratch", size, stream)
        logger.info("the plan %s takes %.1f MB of scratch memory of its own", plan.name, size / 1e6)
    plan.use_scratch(address, size)


def keep_runtime_caches(runtime: PlanRuntime, facts: GpuFacts) -> None:
    """Keep what RTX compiled, if it did and that was not kept yet, so that the next process need not."""
    if runtime.compiles:
        facts.save_runtime_caches(runtime.serialise_caches())
        runtime.compiles = False
