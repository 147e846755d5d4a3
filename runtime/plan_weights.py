"""The weights that a set of plans holds, and the kernels between them: exchanged by name, for a style."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cuda.core import Stream
from numpy.typing import NDArray

from live2diff_trt.engine.plan import LoadedPlan
from live2diff_trt.engine.plan_manifest import KEPT_PLANS, PlanKey
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.device import upload_on
from live2diff_trt.runtime.errors import ControlError

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights

logger = logging.getLogger(__name__)


class PlanWeights:
    """Knows which weights the plans hold. To begin with, those that they were built with.

    Args:
        key: of the plans.
        plans: by name; those whose weights no style replaces are not touched.
        kernel_weights: what kernels read of the weights, by initialiser, in place.
    """

    def __init__(
        self, key: PlanKey, plans: Mapping[str, LoadedPlan], kernel_weights: Mapping[str, DeviceTensor]
    ) -> None:
        self._key = key
        self._plans = {name: plan for name, plan in plans.items() if name not in KEPT_PLANS}
        self._kernel_weights = kernel_weights
        self._of_plan: Mapping[str, frozenset[str]] = {}
        self._changed: frozenset[str] = frozenset()  # initialisers that may be other than the bundle's own
        self._is_fixed = False

    def fix(self) -> None:
        """Let nobody exchange them from here on: several streams are to run these plans."""
        self._is_fixed = True

    def check(self, weights: StyledWeights) -> None:
        """Verify that every plan can take other weights; nothing is changed.

        Raises:
            ControlError: if the plans were not built for it, or other streams run them as well.
            PlanError: if one of them has no place for a weight.
            BundleError: if a graph of the bundle is damaged.
        """
        if self._is_fixed:
            raise ControlError(
                "other streams run these plans too, so their weights can't be exchanged",
                "Open a stream that has plans of its own, with Stream.open",
            )
        if not self._key.refittable:
            raise ControlError(
                "the weights of these plans can't be exchanged: they were not built refittable",
                f"Build others with `{self._key.build_command} --refittable`, and open the stream with "
                "TensorRTOptions(refittable=True)",
            )
        if not self._of_plan:
            from live2diff_trt.engine.networks import find_plan_weights  # needs onnx

            self._of_plan = find_plan_weights(weights.base.bundle, self._key)
        for name, values in self._find_changes(weights).items():
            self._plans[name].refitter.check(values)

    def exchange(self, weights: StyledWeights, stream: Stream) -> None:
        """Let plans and kernels hold other weights, which were checked; only what may differ is written.

        No plan may run meanwhile, but for what ``stream`` was given before, and no graph of before may be launched
        any more. Waits for the stream.

        Raises:
            PlanError: if TensorRT refuses. Then it is not known what they hold, until weights are exchanged again.
        """
        started = time.perf_counter()
        changes = self._find_changes(weights)
        self._changed |= weights.changed.keys()
        handle = int(stream.handle)
        on_their_way: list[Any] = []  # what is read until the stream came by
        try:
            for name, values in changes.items():
                on_their_way.append(self._plans[name].refitter.refit(values, weights.find, handle))
            for name, tensor in self._kernel_weights.items():
                if name in self._changed:
                    on_their_way.append(upload_on(stream, tensor, weights.read(name)))
        finally:
            stream.sync()
        self._changed = frozenset(weights.changed)
        logger.info("%s: %d plans refitted in %.2f s", weights.describe(), len(changes), time.perf_counter() - started)

    def _find_changes(self, weights: StyledWeights) -> dict[str, dict[str, NDArray[Any]]]:
        """Return for each plan that a style changes, or the last one changed, what is to be written into it."""
        names = self._changed | weights.changed.keys()
        found = {plan: _read(names & of_plan, weights) for plan, of_plan in self._of_plan.items()}
        return {plan: values for plan, values in found.items() if values}


def _read(names: Iterable[str], weights: StyledWeights) -> dict[str, NDArray[Any]]:
    return {name: weights.read(name) for name in sorted(names)}
