"""A bundle → the set of plans that one GPU streams with."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.arena import arena_of
from live2diff_trt.engine.build_progress import OnPhase, OnProgress, build_at_once
from live2diff_trt.engine.errors import PlanBuildError, PlanStoreError
from live2diff_trt.engine.flavour import ComputeCapability, Flavour, build_target, refuse_target
from live2diff_trt.engine.networks import Network, collect_networks
from live2diff_trt.engine.plan_builder import PlanOptions, build_plan
from live2diff_trt.engine.plan_manifest import CONSTANTS_FILE, MANIFEST_FILE, Form, PlanKey, PlanManifest
from live2diff_trt.engine.split import UNetSplit
from live2diff_trt.engine.split_graph import load_constants
from live2diff_trt.engine.store import PlanStore, StoredPlans, generator, record_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """Which plans are built.

    Attributes:
        target: compute capability of the GPU that will run them.
        gpu: compute capability of the GPU in this machine, or None.
        form: the UNet as segments with kernels of ours between them, or whole.
        rows: R, rows of the UNet's plans; None takes the bundle's T.
        refittable: the weights of UNet and text encoder can be replaced later; needs a GPU.
    """

    target: ComputeCapability
    gpu: ComputeCapability | None = None
    form: Form = "split"
    rows: int | None = None
    refittable: bool = False


_WORKERS: dict[Form, int] = {"split": 8, "whole": 1}
"""Plans that are built at a time, at most one per core. A whole UNet takes gigabytes of memory: it is built alone."""


def plan_key(bundle: Bundle, flavour: Flavour, options: BuildOptions) -> PlanKey:
    """Return the key of the plans that ``build_plans`` makes; raise PlanBuildError if rows are out of range."""
    rows = bundle.spec.steps if options.rows is None else options.rows
    if rows < 1:
        raise PlanBuildError(f"plans for {rows} rows have nothing to compute", "Use --rows 1 or more")
    return PlanKey(bundle.digest, flavour.name, flavour.version, options.target, options.form, rows, options.refittable)


def build_plans(
    bundle: Bundle,
    flavour: Flavour,
    store: PlanStore,
    options: BuildOptions,
    on_progress: OnProgress = lambda _: None,
    *,
    overwrite: bool = False,
) -> StoredPlans:
    """Build what a bundle needs to stream, or return it as it is if it was built before and is valid.

    Args:
        bundle: the opened bundle.
        flavour: what builds.
        store: where the plans go, complete or not at all.
        options: which plans.
        on_progress: called in the caller's thread. What it raises stops the build.
        overwrite: build again, even if valid plans are there.

    Raises:
        PlanBuildError: if TensorRT refuses a graph, or the options can't be had.
        PlanStoreError: if the plans can't be written.
        FlavourError: if the flavour can't build for the target on this machine.
        BundleError: if a graph is damaged.
    """
    key = plan_key(bundle, flavour, options)
    if not overwrite and (found := _open_valid(store, key)) is not None:
        return found
    refuse_target(flavour, options.target, options.gpu)
    started = time.perf_counter()
    with store.writing(key, replace=overwrite) as folder:
        split, networks = collect_networks(bundle, key)
        plans = {network.name: f"{network.name}.plan" for network in networks}

        def build(index: int, on_phase: OnPhase) -> None:
            network = networks[index]
            _write(folder / plans[network.name], _build(flavour, network, options, on_phase))

        build_at_once(list(plans), build, on_progress, min(_WORKERS[key.form], os.cpu_count() or 1))
        if split is not None:
            _write_constants(folder, bundle, split)
        manifest = PlanManifest(
            key=key,
            compiled_for=build_target(options.target) if flavour.is_rtx else options.target,
            plans=plans,
            structures={network.name: network.structure() for network in networks},
            files=record_files(folder),
            split=None if split is None else split.to_json(),
            arena=None if split is None else _plan_arena(bundle, split, key.rows),
            build_seconds=round(time.perf_counter() - started, 2),
            generator=generator(),
        )
        _write(folder / MANIFEST_FILE, manifest.to_text().encode())
    return store.open(key)


def _open_valid(store: PlanStore, key: PlanKey) -> StoredPlans | None:
    try:
        return store.open(key)
    except PlanStoreError as error:
        logger.info("building, because %s", error.problem)
        return None


def _build(flavour: Flavour, network: Network, options: BuildOptions, on_phase: OnPhase) -> bytes:
    plan_options = PlanOptions(
        target=options.target,
        gpu=options.gpu,
        dimensions=network.dimensions,
        refittable=options.refittable and network.styled,
        channels_last=network.channels_last,
    )
    return build_plan(flavour, network.name, network.serialise(), network.path, plan_options, on_phase)


def _write_constants(folder: Path, bundle: Bundle, split: UNetSplit) -> None:
    constants = load_constants(bundle.file("unet.onnx"), split)
    try:
        np.savez(folder / CONSTANTS_FILE, **constants)  # type: ignore[arg-type] # names are those of initialisers
    except OSError as error:
        raise _not_written(folder / CONSTANTS_FILE, error) from error


def _plan_arena(bundle: Bundle, split: UNetSplit, rows: int) -> dict[str, Any]:
    """Plan room for the rows of a tick and for the warm-up frames, in chunks of ``rows``."""
    spec = bundle.spec
    return arena_of(split, rows, -(-max(spec.sink, spec.steps) // rows)).to_json()


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> PlanStoreError:
    return PlanStoreError(
        f"{path} can't be written ({error})", "Free space there, or choose another folder with --plans"
    )
