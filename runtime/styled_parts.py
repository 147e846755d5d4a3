"""What a stream has of the plans whose weights a style replaces: one set of it is swapped for another."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from live2diff_trt.engine.plan_manifest import KEPT_PLANS
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.opened_plans import OpenedPlans
from live2diff_trt.runtime.plan_source import give_scratch
from live2diff_trt.runtime.tick import Tick
from live2diff_trt.runtime.unet_session import UNetSession


@dataclass(frozen=True)
class StyledParts:
    """What a stream has of each set of weights. All else, memory too, is the same for every set.

    Attributes:
        unet: with plans and kernel weights of its own.
        stages: with the depth path's plan of its own.
        tick: over all of them.
    """

    unet: UNetSession
    stages: DeviceStages
    tick: Tick


def open_styled(first: StyledParts, opened: OpenedPlans) -> StyledParts:
    """Give a stream contexts of other plans of the same kind, bound as those in use. Both never run at the same time.

    Args:
        first: the set that is in use.
        opened: plans that were loaded apart from those (``OpenedPlans.load_apart``); they are held.
    """
    session = first.unet
    with ExitStack() as opening:
        held = opening.enter_context(opened.hold())
        memory = held.enter_context(DeviceMemory(opened.device_id))
        own = opened.open_contexts([name for name in session.plans if name not in KEPT_PLANS])
        for name, plan in own.items():
            opening.callback(plan.close)
            give_scratch(plan, session.scratch[name], memory)
            plan.bind_like(session.plans[name])
        memory.stream.sync()  # scratch memory is zeroed on it
        plans = {**session.plans, **own}
        conditions = session.conditions.with_plans(plans)
        unet = session.unet.with_plans(plans, conditions, opened.constants)
        stages, tick = first.stages.with_plans(plans), first.tick
        session = replace(session, opened=opened, held=held, plans=plans, conditions=conditions, unet=unet)
        styled = StyledParts(session, stages, tick.with_networks(stages, unet))
        opening.pop_all()  # from here on the stream closes them
    return styled


def close_styled(session: UNetSession) -> None:
    """Close what a stream has of one set of weights alone; its contexts of other plans go on. Nothing is on its way."""
    for name, plan in session.plans.items():
        if name not in KEPT_PLANS:
            plan.close()
    session.held.close()
