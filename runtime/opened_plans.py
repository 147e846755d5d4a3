"""The plans of a bundle on a GPU: loaded once, for any number of streams that run them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu_facts import GpuFacts
from live2diff_trt.engine.plan import LoadedPlan, Plan, PlanRuntime
from live2diff_trt.engine.plan_manifest import KEPT_PLANS
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.cut_kernels import upload_constants
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.plan_source import PlanSource, keep_runtime_caches
from live2diff_trt.runtime.plan_threads import call_per_plan
from live2diff_trt.runtime.plan_weights import PlanWeights

logger = logging.getLogger(__name__)


class OpenedPlans(ClosedAtEnd):
    """What streams of one bundle share on a GPU: plans with their weights, kernels, and what those read of the weights.

    Each stream has execution contexts and memory of its own. All is let go of when the last one lets go that holds it:
    whoever opened it does so by ``close``, a stream by closing what ``hold`` gave it. Several threads may use it.

    Args:
        source: of the plans.
        measured: what ``know_plans`` gave.
        memory: in which the constants lie.
        plans: every plan of the set, loaded, by name.
        constants: initialiser → what kernels read of the weights.
        owned: closes all that is not another's.

    Attributes:
        weights: that plans and kernels hold.
        free_before: bytes that were free on the device before the process used it, until its first stream was opened.
    """

    def __init__(
        self,
        source: PlanSource,
        measured: Mapping[str, Any],
        memory: DeviceMemory,
        plans: Mapping[str, LoadedPlan],
        constants: Mapping[str, DeviceTensor],
        owned: ExitStack,
    ) -> None:
        self.measured = measured
        self.free_before: int | None = None
        self.memory = memory
        self.constants = constants
        self.weights = PlanWeights(source, plans, constants, memory)
        self._source = source
        self._plans = plans
        self._owned = owned
        self._holders = 0
        self._is_closed = False
        self._counting = Lock()
        self._held_by_opener = self.hold()

    @property
    def stored(self) -> StoredPlans:
        """The plans as they are stored."""
        return self._source.stored

    @property
    def kernels(self) -> Kernels:
        """Of the device."""
        return self._source.kernels

    @property
    def device_id(self) -> int:
        """Number of the CUDA device."""
        return self.memory.device_id

    def hold(self) -> ExitStack:
        """Keep everything open until what is returned is closed; raise PlanError if nobody holds it any more."""
        with self._counting:
            if self._is_closed:
                raise PlanError("these plans were closed", "Open them again")
            self._holders += 1
        held = ExitStack()
        held.callback(self._let_go)
        return held

    def open_contexts(self, names: Iterable[str] | None = None) -> dict[str, Plan]:
        """Make an execution context of plans, each in its own thread; what RTX compiled for them is kept for later.

        Args:
            names: of plans; None: of all.

        Returns:
            Them, by name; whoever asked closes them, before it lets go of the set.

        Raises:
            PlanError: if TensorRT refuses one; the others are closed then.
        """
        asked = self._plans if names is None else {name: self._plans[name] for name in names}
        return self._source.open_contexts(asked, self.device_id)

    def load_apart(self) -> OpenedPlans:
        """Load the plans whose weights a style replaces once more, for other weights than these; share all else.

        It holds this set as long as it lives. To begin with, it has the weights that the plans were built with.

        Raises:
            PlanStoreError: if a plan can't be read any more.
            PlanError: if TensorRT refuses one.
        """
        self.memory.device.set_current()
        with ExitStack() as owned:
            owned.enter_context(self.hold())
            memory = owned.enter_context(DeviceMemory(self.device_id))
            styled = [name for name in self._plans if name not in KEPT_PLANS]
            plans = {**self._plans, **self._source.load(styled, self.device_id, owned)}
            constants = upload_constants(memory, self.stored, self._source.dtype)
            return OpenedPlans(self._source, self.measured, memory, plans, constants, owned.pop_all())

    def keep_measured(self, **facts: int) -> None:
        """Keep what was found out about these plans on this GPU, beside what is known."""
        self.measured = {**self.measured, **facts}
        self._source.facts.save_measured(self.measured)

    def close(self) -> None:
        """Let whoever opened it let go; closing twice is harmless."""
        self._held_by_opener.close()

    def _let_go(self) -> None:
        with self._counting:
            self._holders -= 1
            self._is_closed = is_last = not self._holders
        if is_last:
            self.memory.device.set_current()
            self._owned.close()


def load_plans(
    stored: StoredPlans,
    flavour: Flavour,
    facts: GpuFacts,
    measured: Mapping[str, Any],
    device_id: int,
    dtype: str,
) -> OpenedPlans:
    """Load every plan of a set, and the kernels.

    Args:
        stored: the plans.
        flavour: what they were built with.
        facts: of this GPU.
        measured: what ``know_plans`` gave.
        device_id: number of the CUDA device.
        dtype: of the stream.

    Raises:
        PlanStoreError: if a plan can't be read any more.
        PlanError: if TensorRT refuses one.
        KernelError: if there are no kernels for this device.
    """
    with ExitStack() as owned:
        memory = owned.enter_context(DeviceMemory(device_id))
        runtime = owned.enter_context(PlanRuntime(flavour, facts.load_runtime_caches()))
        source = PlanSource(stored, flavour, runtime, facts, Kernels.load(memory.device), dtype, Lock())
        plans = source.load(stored.manifest.plans, device_id, owned)
        return OpenedPlans(source, measured, memory, plans, upload_constants(memory, stored, dtype), owned.pop_all())


def know_plans(stored: StoredPlans, flavour: Flavour, facts: GpuFacts, device_id: int) -> dict[str, Any]:
    """Return the plans' memory, as it was measured when they were first opened on this GPU: now, if that was never."""
    measured = facts.load_measured()
    return measured if "scratch_bytes" in measured else _measure_plans(stored, flavour, facts, device_id)


def _measure_plans(stored: StoredPlans, flavour: Flavour, facts: GpuFacts, device_id: int) -> dict[str, Any]:
    """Open every plan once, and close it again, to learn its memory; RTX compiles its kernels meanwhile."""
    logger.info("opening these plans on this GPU for the first time; it takes a minute, once")
    with PlanRuntime(flavour, facts.load_runtime_caches()) as runtime:

        def measure(name: str) -> tuple[int, int]:
            plan = stored.load_plan(name, runtime)
            plan.open().close()
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
