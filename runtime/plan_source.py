"""Where the plans of a stream come from: a bundle's own, and those that are built with a style's weights in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cuda.core import Stream

from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.plan import Plan, PlanRuntime
from live2diff_trt.engine.store import PlanStore, StoredPlans
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.plan_threads import call_per_plan

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanSource:
    """Builds plans, and opens them in the place of others.

    Attributes:
        stored: the bundle's own plans.
        store: where those lie, and where others go.
        flavour: what built them.
        gpu: in this machine.
        runtime: opens them.
        memory: of the device.
    """

    stored: StoredPlans
    store: PlanStore
    flavour: Flavour
    gpu: Gpu
    runtime: PlanRuntime
    memory: DeviceMemory

    def build(self, weights: StyledWeights, names: Collection[str], check: Callable[[], None]) -> StoredPlans:
        """Build plans with a style's weights, or find those that were built before, as ``build_style_plans`` does."""
        from live2diff_trt.engine.style_plans import build_style_plans  # needs onnx

        capability = self.gpu.compute_capability
        return build_style_plans(
            weights, names, self.stored.manifest.key, self.flavour, self.store, capability, check=check
        )

    def reopen(self, plans: Iterable[Plan], stored: StoredPlans, stream: Stream) -> None:
        """Let plans run what is stored under their names; what they ran before is freed, and must not be in use.

        A plan that wants more scratch memory than it has is given its own, zeroed in the order of ``stream``.

        Raises:
            PlanStoreError: if a file is gone.
            PlanError: if TensorRT refuses one.
            BackendError: if there is no memory for what one needs.
        """
        by_name = {plan.name: plan for plan in plans}
        started = time.perf_counter()
        call_per_plan(lambda name: stored.reopen_plan(by_name[name], self.runtime), by_name, self.memory.device_id)
        for plan in by_name.values():
            self._give_scratch(plan, stream)
        logger.info("%d plans opened in the place of others in %.2f s", len(by_name), time.perf_counter() - started)

    def _give_scratch(self, plan: Plan, stream: Stream) -> None:
        address, size = plan.scratch
        if plan.scratch_bytes > size:
            size = plan.scratch_bytes
            address = self.memory.allocate("scratch", size, stream)
            logger.info("the plan %s takes %.1f MB of scratch memory of its own", plan.name, size / 1e6)
        plan.use_scratch(address, size)
