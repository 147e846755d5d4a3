"""Plans with a style's weights are, byte for byte, those of a bundle that has these weights; built without a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.build import BuildOptions, PlanWork, plan_key, write_plans
from live2diff_trt.engine.errors import PlanBuildError, PlanStoreError
from live2diff_trt.engine.flavour import Flavour, choose_flavour
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.engine.networks import collect_networks
from live2diff_trt.engine.plan_manifest import Form, PlanKey
from live2diff_trt.engine.restyle import StyledWeights, fit_style, read_style
from live2diff_trt.engine.store import PlanStore, StoredPlans
from live2diff_trt.engine.style_plans import build_style_plans

AHEAD = BuildOptions(target=(8, 9))
SOME = {"text_encoder", "prompt_kv", "depth_embed", "segment_003", "segment_010"}
"""Without ``time_embed``: TensorRT-RTX 1.6.1 lays its weights in another order every time."""


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    return choose_flavour("tensorrt-rtx", None)[0]


@pytest.fixture(scope="module")
def weights(tiny_bundle: Path, other_bundle: Path) -> StyledWeights:
    base = BundleInitialisers.open(tiny_bundle)
    return StyledWeights(base, fit_style(base, read_style(other_bundle)))


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "plans")


def key_of(bundle: Path, rtx: Flavour, form: Form = "split") -> PlanKey:
    return plan_key(Bundle.open(bundle, ()), rtx, replace(AHEAD, form=form))


def build_of_bundle(bundle: Path, names: set[str], rtx: Flavour, store: PlanStore, form: Form = "split") -> StoredPlans:
    """Build some plans of a bundle from its own files."""
    key = key_of(bundle, rtx, form)
    _, networks = collect_networks(Bundle.open(bundle), key)
    wanted = [network for network in networks if network.name in names]
    with store.writing(key) as folder:
        write_plans(folder, PlanWork(key, wanted), rtx, None, lambda _: None, workers=2)
    return store.open(key)


def build_styled(
    weights: StyledWeights,
    names: set[str],
    rtx: Flavour,
    store: PlanStore,
    form: Form = "split",
    check: Callable[[], None] = lambda: None,
) -> StoredPlans:
    key = key_of(weights.base.bundle.folder, rtx, form)
    return build_style_plans(weights, names, key, rtx, store, None, check)


def contents(plans: StoredPlans) -> dict[str, bytes]:
    return {name: plans.plan_bytes(name) for name in plans.manifest.plans}


def test_they_are_the_plans_of_a_bundle_with_these_weights(
    weights: StyledWeights, other_bundle: Path, rtx: Flavour, store: PlanStore
) -> None:
    own = build_of_bundle(weights.base.bundle.folder, SOME, rtx, store)
    other = build_of_bundle(other_bundle, SOME, rtx, store)
    styled = build_styled(weights, SOME, rtx, store)
    assert set(styled.manifest.plans) == SOME
    assert contents(styled) == contents(other)
    assert all(contents(styled)[name] != contents(own)[name] for name in SOME)
    assert styled.manifest.structures == own.manifest.structures


@pytest.mark.slow
def test_so_they_are_in_the_whole_form(
    weights: StyledWeights, other_bundle: Path, rtx: Flavour, store: PlanStore
) -> None:
    """But for the order of their weights. Half a minute: TensorRT compiles one large graph three times."""
    own = build_of_bundle(weights.base.bundle.folder, {"unet"}, rtx, store, "whole")
    other = build_of_bundle(other_bundle, {"unet"}, rtx, store, "whole")
    styled = build_styled(weights, {"unet"}, rtx, store, "whole")
    assert count_bytes(styled, "unet") == count_bytes(other, "unet") != count_bytes(own, "unet")


def count_bytes(plans: StoredPlans, name: str) -> list[int]:
    """Return how often each byte is in a plan."""
    return np.bincount(np.frombuffer(plans.plan_bytes(name), np.uint8), minlength=256).tolist()


def test_they_lie_beside_the_bundles_own_under_the_styles_identity(
    weights: StyledWeights, rtx: Flavour, store: PlanStore
) -> None:
    own = build_of_bundle(weights.base.bundle.folder, {"depth_embed"}, rtx, store)
    styled = build_styled(weights, {"depth_embed"}, rtx, store)
    assert styled.manifest.key == replace(own.manifest.key, style=weights.identity)
    assert styled.folder.name == f"{own.folder.name}-style-{weights.identity[:16]}"
    assert styled.folder.parent == own.folder.parent
    assert (styled.split, styled.arena, styled.constants) == (None, None, {})
    assert store.find(own.manifest.key.bundle_digest) == [own.manifest.key]
    assert store.open(own.manifest.key) == own


def test_what_was_built_is_not_built_again_and_a_set_grows(
    weights: StyledWeights, rtx: Flavour, store: PlanStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "live2diff_trt.engine")
    first = build_styled(weights, {"segment_003", "prompt_kv"}, rtx, store)
    before = contents(first)
    assert build_styled(weights, {"segment_003"}, rtx, store) == first
    assert "1 plans were built for it before" in caplog.text
    more = build_styled(weights, {"depth_embed"}, rtx, store)
    assert set(more.manifest.plans) == {"segment_003", "prompt_kv", "depth_embed"}
    assert contents(more).items() > before.items()
    assert build_styled(weights, {"prompt_kv", "depth_embed"}, rtx, store) == more


@pytest.mark.parametrize("name", ["depth_embed.plan", "plans.json"])
def test_what_was_damaged_is_built_again(
    weights: StyledWeights, rtx: Flavour, store: PlanStore, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "live2diff_trt.engine")
    first = build_styled(weights, {"depth_embed"}, rtx, store)
    before = contents(first)
    (first.folder / name).write_bytes(b"damaged")
    with pytest.raises(PlanStoreError, match="Set the style again"):
        store.open(first.manifest.key)
    assert contents(build_styled(weights, {"depth_embed"}, rtx, store)) == before
    assert "building, because" in caplog.text


def test_another_style_has_others(weights: StyledWeights, rtx: Flavour, store: PlanStore) -> None:
    assert weights.delta is not None
    few = {name: -values for name, values in weights.changed.items()}
    other = StyledWeights(weights.base, replace(weights.delta, values=few, identity="f" * 64))
    first, second = (build_styled(one, {"depth_embed"}, rtx, store) for one in (weights, other))
    assert first.folder != second.folder
    assert contents(first) != contents(second)


def test_a_build_that_is_stopped_leaves_nothing(
    weights: StyledWeights, rtx: Flavour, store: PlanStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    calls: Iterator[int] = iter(range(3))

    def stop() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_styled(weights, SOME, rtx, store, check=stop)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    assert caplog.records == []


def test_a_store_that_cant_be_written_is_told(weights: StyledWeights, rtx: Flavour, tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file")
    with pytest.raises(PlanStoreError, match="can't be written"):
        build_styled(weights, {"depth_embed"}, rtx, PlanStore(tmp_path / "plans"))


def test_refittable_plans_are_built_refittable_which_needs_a_gpu(
    weights: StyledWeights, rtx: Flavour, store: PlanStore
) -> None:
    key = replace(key_of(weights.base.bundle.folder, rtx), refittable=True)
    with pytest.raises(PlanBuildError, match="a refittable plan can't be built without a GPU"):
        build_style_plans(weights, {"depth_embed"}, key, rtx, store, None)
