"""A bundle → the set of plans that one GPU streams with."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, eq=False)
class PlanWork:
    """What has to be built of a set of plans.

    Attributes:
        key: of the set.
        networks: what each plan is built from.
        values: initialiser → what takes the place of the bundle's own values.
        split: how the UNet is cut, in the split form, if the set is to hold all that streams.
        arena: ``Arena.to_json()``, likewise.
        constants: what kernels read of the weights, likewise.
    """

    key: PlanKey
    networks: Sequence[Network]
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    split: UNetSplit | None = None
    arena: Mapping[str, Any] | None = None
    constants: Mapping[str, NDArray[Any]] | None = None


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
    if not overwrite and (found := open_valid(store, key)) is not None:
        return found
    refuse_target(flavour, options.target, options.gpu)
    workers = min(_WORKERS[key.form], os.cpu_count() or 1)
    with store.writing(key, replace=overwrite) as folder:
        write_plans(folder, _all_work(bundle, key), flavour, options.gpu, on_progress, workers)
    return store.open(key)


def open_valid(store: PlanStore, key: PlanKey) -> StoredPlans | None:
    """Return plans that were built before; None, and log why, if there are none that can be used."""
    try:
        return store.open(key)
    except PlanStoreError as error:
        logger.info("building, because %s", error.problem)
        return None


def write_plans(
    folder: Path,
    work: PlanWork,
    flavour: Flavour,
    gpu: ComputeCapability | None,
    on_progress: OnProgress,
    workers: int,
) -> None:
    """Build plans into a folder of the store that is being written, and put their manifest beside them.

    Args:
        folder: what ``PlanStore.writing`` gave.
        work: what to build.
        flavour: what builds.
        gpu: compute capability of the GPU in this machine, or None.
        on_progress: called in the caller's thread. What it raises stops the build.
        workers: how many plans at a time.

    Raises:
        PlanBuildError: if TensorRT refuses a graph.
        PlanStoreError: if a file can't be written.
        BundleError: if a graph is damaged.
    """
    started = time.perf_counter()
    key, networks = work.key, work.networks
    plans = {network.name: f"{network.name}.plan" for network in networks}

    def build(index: int, on_phase: OnPhase) -> None:
        network = networks[index]
        _write(folder / plans[network.name], _build(flavour, network, work, gpu, on_phase))

    build_at_once(list(plans), build, on_progress, workers)
    if work.constants is not None:
        _write_constants(folder, work.constants)
    manifest = PlanManifest(
        key=key,
        compiled_for=build_target(key.target) if flavour.is_rtx else key.target,
        plans=plans,
        structures={network.name: network.structure() for network in networks},
        files=record_files(folder),
        split=None if work.split is None else work.split.to_json(),
        arena=work.arena,
        build_seconds=round(time.perf_counter() - started, 2),
        generator=generator(),
    )
    _write(folder / MANIFEST_FILE, manifest.to_text().encode())


def _all_work(bundle: Bundle, key: PlanKey) -> PlanWork:
    """Return what a bundle needs to stream."""
    split, networks = collect_networks(bundle, key)
    if split is None:
        return PlanWork(key, networks)
    constants = load_constants(bundle.file("unet.onnx"), split)
    return PlanWork(key, networks, split=split, arena=_plan_arena(bundle, split, key.rows), constants=constants)


def _build(
    flavour: Flavour, network: Network, work: PlanWork, gpu: ComputeCapability | None, on_phase: OnPhase
) -> bytes:
    values = {name: work.values[name] for name in network.weights() & work.values.keys()} if work.values else {}
    options = PlanOptions(
        target=work.key.target,
        gpu=gpu,
        dimensions=network.dimensions,
        refittable=work.key.refittable and network.styled,
        channels_last=network.channels_last,
        values=values,
    )
    return build_plan(flavour, network.name, network.serialise(), network.path, options, on_phase)


def _write_constants(folder: Path, constants: Mapping[str, NDArray[Any]]) -> None:
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
