"""Plans with a style's weights in them, in the place of those of a bundle that can't be refitted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from live2diff_trt.engine.build import PlanWork, open_valid, write_plans
from live2diff_trt.engine.build_progress import BuildProgress
from live2diff_trt.engine.flavour import ComputeCapability, Flavour
from live2diff_trt.engine.networks import collect_networks
from live2diff_trt.engine.plan_manifest import PlanKey
from live2diff_trt.engine.restyle import StyledWeights
from live2diff_trt.engine.store import PlanStore, StoredPlans

logger = logging.getLogger(__name__)

_TOLD_SHARE = 0.1
"""Of the plans that are built: as many are finished from one line of the log to the next."""


def build_style_plans(
    weights: StyledWeights,
    names: Collection[str],
    key: PlanKey,
    flavour: Flavour,
    store: PlanStore,
    gpu: ComputeCapability | None,
    check: Callable[[], None] = lambda: None,
) -> StoredPlans:
    """Build some plans of a bundle with a style's weights, or return them if that was done before and they are valid.

    They are built as the bundle's own were, and kept in the store under the style's identity; a set grows if more of
    them are asked for later. Half of the processor's cores are left to the stream, and the log says how far it is.

    Args:
        weights: the bundle's, under the style.
        names: of the plans.
        key: of the bundle's own plans.
        flavour: what built those.
        store: where they go, complete or not at all.
        gpu: compute capability of the GPU in this machine, or None.
        check: called every now and then in the caller's thread. What it raises stops the build.

    Raises:
        PlanBuildError: if TensorRT refuses a graph.
        PlanStoreError: if they can't be written.
        BundleError: if a graph is damaged.
    """
    styled_key = replace(key, style=weights.identity)
    found = open_valid(store, styled_key)
    known = frozenset[str]() if found is None else frozenset(found.manifest.plans)
    if found is not None and known.issuperset(names):
        logger.info("%s: %d plans were built for it before", weights.describe(), len(names))
        return found
    _, networks = collect_networks(weights.base.bundle, key)
    wanted = [network for network in networks if network.name in known.union(names)]
    _tell_of_build(weights, len(wanted), key)
    telling = _ProgressLog(weights.describe(), check)
    work = PlanWork(styled_key, wanted, weights.changed)
    workers = max(1, (os.cpu_count() or 1) // 2) if key.form == "split" else 1
    with store.writing(styled_key, replace=True) as folder:
        write_plans(folder, work, flavour, gpu, telling, workers)
    stored = store.open(styled_key)
    logger.info("%s: %d plans built in %.0f s", weights.describe(), len(wanted), stored.manifest.build_seconds)
    return stored


def _tell_of_build(weights: StyledWeights, plans: int, key: PlanKey) -> None:
    """Warn: whoever waits for a style waits longer than for a refit."""
    faster = "" if key.refittable else "; plans of `build --refittable` take a style without that"
    logger.warning(
        "%s: building %d plans, which can't be refitted; it may take minutes, once%s",
        weights.describe(),
        plans,
        faster,
    )


class _ProgressLog:
    """Tells the log how far a build is, and the caller that it goes on."""

    def __init__(self, style: str, check: Callable[[], None]) -> None:
        self._style = style
        self._check = check
        self._started = time.perf_counter()
        self._told = 0

    def __call__(self, progress: BuildProgress) -> None:
        self._check()
        if progress.index - self._told >= _TOLD_SHARE * progress.plans:
            self._told = progress.index
            seconds = time.perf_counter() - self._started
            logger.info("%s: %d of %d plans built in %.0f s", self._style, progress.index, progress.plans, seconds)
