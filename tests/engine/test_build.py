"""A bundle becomes a set of plans, ahead of time and without a GPU, in both forms."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import Bundle, write_manifest
from live2diff_trt.engine import build as build_module
from live2diff_trt.engine.arena import arena_of
from live2diff_trt.engine.build import BuildOptions, build_plans, plan_key
from live2diff_trt.engine.build_progress import BuildProgress
from live2diff_trt.engine.errors import FlavourError, PlanBuildError, PlanStoreError
from live2diff_trt.engine.flavour import Flavour, choose_flavour
from live2diff_trt.engine.plan_builder import PlanOptions
from live2diff_trt.engine.split_graph import cut_unet
from live2diff_trt.engine.store import PlanStore, StoredPlans

AHEAD = BuildOptions(target=(8, 9))
COMMON = {"text_encoder", "prompt_kv", "time_embed", "vae_encoder", "depth", "depth_embed", "vae_decoder"}


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    return choose_flavour("tensorrt-rtx", None)[0]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def split_plans(bundle: Bundle, rtx: Flavour, tmp_path_factory: pytest.TempPathFactory) -> StoredPlans:
    """The tiny bundle's plans in the split form. Shared: tests must not change them."""
    return build_plans(bundle, rtx, PlanStore(tmp_path_factory.mktemp("plans")), AHEAD)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, PlanOptions]]:
    """Nothing is compiled: a plan is its graph. Returns what would have been built, in order."""
    built: list[tuple[str, PlanOptions]] = []

    def build_plan(
        flavour: Flavour, name: str, model: bytes, path: Path, options: PlanOptions, on_phase: Callable[..., None]
    ) -> bytes:
        built.append((name, options))
        on_phase("compiling", 1, 2)
        return model

    monkeypatch.setattr(build_module, "build_plan", build_plan)
    return built


def test_the_split_form_has_every_plan(split_plans: StoredPlans, bundle: Bundle) -> None:
    split = cut_unet(bundle.file("unet.onnx"), bundle.spec, 2).split
    segments = {segment.name for segment in split.segments}
    manifest = split_plans.manifest
    assert set(manifest.plans) == COMMON | segments
    assert len(segments) == len(split.cuts) + 1
    assert all(len(split_plans.plan_bytes(name)) > 5_000 for name in manifest.plans)
    assert (manifest.key.rows, manifest.key.target, manifest.compiled_for) == (bundle.spec.steps, (8, 9), (8, 9))
    assert manifest.build_seconds > 0


def test_the_split_form_knows_its_cuts_constants_and_arena(split_plans: StoredPlans, bundle: Bundle) -> None:
    split = cut_unet(bundle.file("unet.onnx"), bundle.spec, 2).split
    assert split_plans.split == split
    assert split_plans.arena == arena_of(split, 2, 4)  # 8 warm-up frames in chunks of 2 rows
    constants = split_plans.constants
    assert set(constants) == set(split.constants)
    for attention, cache in zip(split.temporal_attentions, bundle.spec.kv_caches, strict=True):
        assert {constants[name].shape for name in attention.tables} == {(bundle.spec.window, cache.channels)}
    assert all(np.isfinite(values).all() for values in constants.values())
    assert all(constants[name].any() for attention in split.temporal_attentions for name in attention.tables)


def test_what_was_built_is_not_built_again(
    split_plans: StoredPlans, bundle: Bundle, rtx: Flavour, quick: list[tuple[str, PlanOptions]]
) -> None:
    store = PlanStore(split_plans.folder.parents[1])
    assert build_plans(bundle, rtx, store, AHEAD) == split_plans
    assert quick == []


@pytest.mark.slow
def test_the_whole_form_has_two_unets_and_no_cuts(bundle: Bundle, rtx: Flavour, tmp_path: Path) -> None:
    """Half a minute: all that TensorRT compiles here it compiles once more, in two large graphs."""
    plans = build_plans(bundle, rtx, PlanStore(tmp_path), replace(AHEAD, form="whole"))
    assert set(plans.manifest.plans) == COMMON | {"unet_warmup", "unet"}
    assert (plans.split, plans.arena, plans.constants) == (None, None, {})
    assert len(plans.plan_bytes("unet")) > 1_000_000


def test_every_symbolic_dimension_gets_its_value(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    plans = build_plans(bundle, rtx, PlanStore(tmp_path), replace(AHEAD, form="whole", rows=3))
    dimensions = {name: dict(options.dimensions) for name, options in quick}
    assert dimensions == {
        "text_encoder": {"rows": 1},
        "prompt_kv": {"rows": 1, "tokens": bundle.spec.prompt_tokens},
        "time_embed": {"rows": 1},
        "vae_encoder": {"frames": 1},
        "depth": {"frames": 1},
        "depth_embed": {"frames": 1},
        "unet_warmup": {},
        "unet": {"rows": 3},
        "vae_decoder": {"frames": 1},
    }
    assert plans.manifest.key.rows == 3


@pytest.mark.parametrize(("rows", "chunks"), [(1, 8), (3, 3), (8, 1), (9, 1)])
def test_the_arena_has_room_for_the_warm_up(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]], rows: int, chunks: int
) -> None:
    plans = build_plans(bundle, rtx, PlanStore(tmp_path), replace(AHEAD, rows=rows))
    assert plans.split is not None
    assert plans.arena == arena_of(plans.split, rows, chunks)


def test_what_a_style_changes_is_refittable(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    build_plans(bundle, rtx, PlanStore(tmp_path), BuildOptions((8, 9), gpu=(8, 9), refittable=True))
    fixed = {name for name, options in quick if not options.refittable}
    assert fixed == {"vae_encoder", "depth", "vae_decoder"}


def test_progress_counts_plans(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    seen: list[BuildProgress] = []
    build_plans(bundle, rtx, PlanStore(tmp_path), AHEAD, seen.append)
    counts = [one.index for one in seen]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert {one.plan for one in seen} == {name for name, _ in quick}
    assert {(one.plans, one.phase, one.done, one.steps) for one in seen} == {(len(quick), "compiling", 1, 2)}


def test_hopper_gets_plans_for_ada(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    manifest = build_plans(bundle, rtx, PlanStore(tmp_path), BuildOptions((9, 0))).manifest
    assert (manifest.key.target, manifest.compiled_for) == ((9, 0), (8, 9))
    assert "-sm90-" in manifest.key.folder_name


def test_a_bundle_of_the_unet_alone_gives_plans_of_it_alone(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    """As a recording of the UNet is, which comes without what surrounds it."""
    around = ("text_encoder", "vae_encoder", "depth", "vae_decoder")
    files = {name: record for name, record in bundle.manifest.files.items() if Path(name).stem not in around}
    alone = replace(bundle, manifest=replace(bundle.manifest, files=files))
    plans = build_plans(alone, rtx, PlanStore(tmp_path), replace(AHEAD, form="whole"))
    assert set(plans.manifest.plans) == {"prompt_kv", "time_embed", "depth_embed", "unet_warmup", "unet"}


def test_an_interrupted_build_leaves_nothing(bundle: Bundle, rtx: Flavour, tmp_path: Path) -> None:
    def stop(progress: BuildProgress) -> None:
        if progress.plan == "time_embed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plans(bundle, rtx, PlanStore(tmp_path), AHEAD, stop)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_damaged_plans_are_built_again(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    store = PlanStore(tmp_path)
    plans = build_plans(bundle, rtx, store, AHEAD)
    (plans.folder / "depth.plan").write_bytes(b"")
    with pytest.raises(PlanStoreError, match=r"depth\.plan has 0 bytes"):
        store.open(plans.manifest.key)
    count = len(quick)
    assert build_plans(bundle, rtx, store, AHEAD).plan_bytes("depth")
    assert len(quick) == 2 * count


def test_overwrite_builds_again(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    for _ in range(2):
        build_plans(bundle, rtx, PlanStore(tmp_path), AHEAD, overwrite=True)
    names = [name for name, _ in quick]
    assert sorted(names[: len(names) // 2]) == sorted(names[len(names) // 2 :])


def test_another_bundle_has_other_plans(
    bundle: Bundle, damaged_bundle: Path, rtx: Flavour, split_plans: StoredPlans
) -> None:
    write_manifest(damaged_bundle, replace(bundle.manifest, generator="another exporter"))
    other = Bundle.open(damaged_bundle)
    with pytest.raises(PlanStoreError, match="there are no plans for"):
        PlanStore(split_plans.folder.parents[1]).open(plan_key(other, rtx, AHEAD))


def test_refittable_plans_need_a_gpu(bundle: Bundle, rtx: Flavour, tmp_path: Path) -> None:
    with pytest.raises(PlanBuildError, match="without a GPU"):
        build_plans(bundle, rtx, PlanStore(tmp_path), replace(AHEAD, refittable=True))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_can_not_be_had_is_refused_before_anything_is_built(
    bundle: Bundle, rtx: Flavour, tmp_path: Path, quick: list[tuple[str, PlanOptions]]
) -> None:
    with pytest.raises(FlavourError, match=r"8\.7"):
        build_plans(bundle, rtx, PlanStore(tmp_path), BuildOptions((8, 7)))
    with pytest.raises(FlavourError, match="only for the GPU of its own machine"):
        build_plans(bundle, Flavour("tensorrt", "11.4", None), PlanStore(tmp_path), AHEAD)
    with pytest.raises(PlanBuildError, match="0 rows"):
        build_plans(bundle, rtx, PlanStore(tmp_path), replace(AHEAD, rows=0))
    assert quick == []


def build_in_process(folder: Path, root: Path, rows: int) -> None:
    flavour, _ = choose_flavour("tensorrt-rtx", None)
    build_plans(Bundle.open(folder), flavour, PlanStore(root), replace(AHEAD, rows=rows))


def test_two_processes_build_the_same_plans_at_once(tiny_bundle: Path, tmp_path: Path, rtx: Flavour) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=build_in_process, args=(tiny_bundle, tmp_path, 1)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    bundle = Bundle.open(tiny_bundle)
    plans = PlanStore(tmp_path).open(plan_key(bundle, rtx, replace(AHEAD, rows=1)))
    assert [path.name for path in plans.folder.parent.iterdir()] == [plans.folder.name]
