"""The weights that a set of plans holds, and the kernels between them: exchanged by name, for a style."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cuda.core import Stream
from numpy.typing import NDArray

from live2diff_trt.engine.plan import LoadedPlan, Plan
from live2diff_trt.engine.plan_manifest import KEPT_PLANS
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.device import DeviceMemory, upload_on
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.plan_source import PlanSource
from live2diff_trt.runtime.plan_threads import call_per_plan

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights

logger = logging.getLogger(__name__)

_OWN = ""
"""``StyledWeights.identity`` of the bundle's own weights."""


@dataclass(frozen=True, eq=False)
class PreparedStyle:
    """A style that plans can take.

    Attributes:
        weights: the bundle's, under the style.
        rebuilt: plans that can't take them by a refit, and were built anew with them.
        stored: holds those, if there are any.
    """

    weights: StyledWeights
    rebuilt: frozenset[str] = frozenset()
    stored: StoredPlans | None = None


@dataclass
class _Held:
    """What one plan holds.

    Attributes:
        built_for: identity of the style that it was built for; None: not known, because loading it failed.
        changed: initialisers that may be other than they were when it was built.
    """

    built_for: str | None = _OWN
    changed: frozenset[str] = frozenset()


class PlanWeights:
    """Knows which weights the plans hold. To begin with, those that they were built with.

    A plan takes other weights by a refit if it can; else one that was built with them takes its place, and the
    bundle's own plan again when they are no longer wanted.

    Args:
        source: of the plans.
        plans: by name; those whose weights no style replaces are not touched.
        kernel_weights: what kernels read of the weights, by initialiser, in place.
        memory: in which plans that want more scratch memory than the bundle's own are given theirs.

    Attributes:
        must_rehearse: whether contexts were made anew in an exchange and did not run: then they can't be captured. Who
            runs them sets it back.
    """

    def __init__(
        self,
        source: PlanSource,
        plans: Mapping[str, LoadedPlan],
        kernel_weights: Mapping[str, DeviceTensor],
        memory: DeviceMemory,
    ) -> None:
        self.must_rehearse = False
        self._source = source
        self._plans = {name: plan for name, plan in plans.items() if name not in KEPT_PLANS}
        self._kernel_weights = kernel_weights
        self._memory = memory
        self._of_plan: Mapping[str, frozenset[str]] = {}
        self._held = {name: _Held() for name in self._plans}
        self._changed_in_kernels: frozenset[str] = frozenset()  # initialisers that may be other than the bundle's own
        self._is_fixed = False

    def fix(self) -> None:
        """Let nobody exchange them from here on: several streams are to run these plans."""
        self._is_fixed = True

    def prepare(self, weights: StyledWeights, check: Callable[[], None] = lambda: None) -> PreparedStyle:
        """Find out how every plan can take other weights, and build those anew that can't be refitted.

        Plans are not changed, and may run. What is built is kept in the plan store, so that it is built once.

        Args:
            weights: the bundle's, under a style.
            check: called every now and then while plans are built. What it raises stops that.

        Raises:
            ControlError: if other streams run the plans as well.
            PlanBuildError, PlanStoreError: if a plan can't be built.
            BundleError: if a graph of the bundle is damaged.
        """
        if self._is_fixed:
            raise ControlError(
                "other streams run these plans too, so their weights can't be exchanged",
                "Open a stream that has plans of its own, with Stream.open",
            )
        if not self._of_plan:
            from live2diff_trt.engine.networks import find_plan_weights  # needs onnx

            self._of_plan = find_plan_weights(weights.base.bundle, self._source.stored.manifest.key)
        obstacles = self._find_obstacles(weights)
        if not obstacles:
            return PreparedStyle(weights)
        logger.info("%s: %d plans can't be refitted; %s", weights.describe(), len(obstacles), min(obstacles.values()))
        return PreparedStyle(weights, frozenset(obstacles), self._source.build(weights, obstacles.keys(), check))

    def exchange(self, style: PreparedStyle, contexts: Mapping[str, Plan], stream: Stream) -> None:
        """Let plans and kernels hold the weights of a style that was prepared; only what may differ is written.

        No plan may run meanwhile, but for what ``stream`` was given before, and no graph of before may be launched
        any more. Waits for the stream.

        Args:
            style: what ``prepare`` gave.
            contexts: of the plans, by name: all that are open. They go on where they are bound.
            stream: in whose order weights are written.

        Raises:
            PlanError, PlanStoreError: if a plan can't be refitted, or not be loaded. Then it is not known what they
                hold, until weights are exchanged again.
            BackendError: if there is no memory for a plan that is loaded.
        """
        started = time.perf_counter()
        reloaded = self._reload(style, contexts, stream)
        refitted = self._write(style, stream)
        logger.info(
            "%s: %d plans refitted, %d loaded in the place of others, in %.2f s",
            style.weights.describe(),
            refitted,
            reloaded,
            time.perf_counter() - started,
        )

    def _find_obstacles(self, weights: StyledWeights) -> dict[str, str]:
        """Return why plans can't be refitted, for those of which a style changes something."""
        read = {name: _read(weights.changed.keys() & own, weights) for name, own in self._of_plan.items()}
        changes = {name: values for name, values in read.items() if values}

        def find_obstacle(name: str) -> str | None:
            return self._plans[name].refitter.find_obstacle(changes[name], weights.find)

        found = call_per_plan(find_obstacle, changes, self._memory.device_id)
        return {name: obstacle for name, obstacle in found.items() if obstacle is not None}

    def _reload(self, style: PreparedStyle, contexts: Mapping[str, Plan], stream: Stream) -> int:
        """Let plans be those that were built for this style, and the bundle's own instead of those for another."""
        own = self._reload_those(self._plans.keys() - style.rebuilt, self._source.stored, _OWN, contexts, stream)
        if style.stored is None:
            return own
        return own + self._reload_those(style.rebuilt, style.stored, style.weights.identity, contexts, stream)

    def _reload_those(
        self, names: Iterable[str], stored: StoredPlans, built_for: str, contexts: Mapping[str, Plan], stream: Stream
    ) -> int:
        """Load plans out of a set, but for those that are loaded; return how many."""
        others = sorted(name for name in names if self._held[name].built_for != built_for)
        if others:
            stream.sync()  # behind it, none of them runs
            self._held |= {name: _Held(built_for=None) for name in others}
            self.must_rehearse |= bool(contexts)
            plans = {name: self._plans[name] for name in others}
            self._source.reload(plans, stored, contexts, self._memory, stream)
            self._held |= {name: _Held(built_for) for name in others}
        return len(others)

    def _write(self, style: PreparedStyle, stream: Stream) -> int:
        """Refit plans, and write what kernels read; return how many plans were refitted."""
        weights = style.weights
        changed = frozenset(weights.changed)
        refits = self._find_refits(style)
        self._changed_in_kernels |= changed
        on_their_way: list[Any] = []  # what is read until the stream came by

        def refit(name: str) -> None:
            self._held[name].changed |= refits[name].keys()
            on_their_way.append(self._plans[name].refitter.refit(refits[name], weights.find, int(stream.handle)))

        try:
            call_per_plan(refit, refits, self._memory.device_id)
            on_their_way += [
                upload_on(stream, self._kernel_weights[name], weights.read(name))
                for name in self._kernel_weights.keys() & self._changed_in_kernels
            ]
        finally:
            stream.sync()
        for name in refits:
            self._held[name].changed = changed & self._of_plan[name]
        self._changed_in_kernels = changed
        return len(refits)

    def _find_refits(self, style: PreparedStyle) -> dict[str, dict[str, NDArray[Any]]]:
        """Return for each plan that a style changes, or the last one changed, what is to be written into it."""
        weights = style.weights
        found = {
            name: _read((self._held[name].changed | weights.changed.keys()) & own, weights)
            for name, own in self._of_plan.items()
            if name not in style.rebuilt
        }
        return {name: values for name, values in found.items() if values}


def _read(names: Iterable[str], weights: StyledWeights) -> dict[str, NDArray[Any]]:
    return {name: weights.read(name) for name in sorted(names)}
