"""A second set of the plans whose weights a style replaces: prepared beside the stream, then swapped for the first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from live2diff_trt.engine.plan_manifest import KEPT_PLANS
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.plan_threads import call_per_plan
from live2diff_trt.runtime.plan_weights import PlanWeights
from live2diff_trt.runtime.tick import Tick
from live2diff_trt.runtime.unet_session import UNetSession


@dataclass(frozen=True)
class StyledParts:
    """What there is twice: one is in use, and the other takes the next style. All else, memory too, is shared.

    Attributes:
        unet: with plans and kernel weights of its own.
        weights: that these hold.
        stages: with the depth path's plan of its own.
        tick: over all of them.
    """

    unet: UNetSession
    weights: PlanWeights
    stages: DeviceStages
    tick: Tick


def open_spare(first: StyledParts, stored: StoredPlans) -> StyledParts:
    """Open the plans whose weights a style replaces once more. Both sets never run at the same time.

    Args:
        first: the set that is in use.
        stored: the plans.
    """
    session = first.unet
    names = [name for name in stored.manifest.plans if name not in KEPT_PLANS]
    own = call_per_plan(lambda name: stored.open_plan(name, session.runtime), names, session.memory.device_id)
    for name, plan in own.items():
        plan.use_scratch(*session.plans[name].scratch)
    plans = {**session.plans, **own}
    conditions = session.conditions.with_plans(plans)
    unet = session.unet.with_plans(session.memory, plans, conditions)
    stages = first.stages.with_plans(plans)
    weights = first.weights.of_others(plans, unet.kernel_weights)
    return StyledParts(
        replace(session, plans=plans, conditions=conditions, unet=unet),
        weights,
        stages,
        first.tick.with_networks(stages, unet),
    )
