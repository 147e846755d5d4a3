"""Plans are compared with their graphs on an emulated GPU, where a plan is its graph, until a test makes it lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.errors import PlanBuildError, PlanStoreError
from live2diff_trt.engine.networks import Network, collect_networks
from live2diff_trt.engine.plan_manifest import Form, PlanKey
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.engine.verify import PlanCheck, refuse_failed
from live2diff_trt.runtime import verify
from live2diff_trt.runtime.verify import verify_plans
from tests.runtime.emulated_device import Array, EmulatedGpu
from tests.runtime.emulated_gpu import FLAVOUR, GPU, build_emulated_plans, install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache
from tests.runtime.emulated_plans import EmulatedPlan, EmulatedPlanRuntime

ROUNDING = 1e-5


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphCache]:
    cache = GraphCache()
    yield cache
    cache.close()


@pytest.fixture(scope="module")
def split_plans(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredPlans:
    return build_emulated_plans(tiny_bundle, tmp_path_factory.mktemp("plans"), "split", 3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, graphs: GraphCache) -> EmulatedGpu:
    gpu = install_emulated_gpu(monkeypatch, graphs)
    monkeypatch.setattr(verify, "PlanRuntime", lambda _, caches: EmulatedPlanRuntime(gpu, graphs, caches))
    return gpu


def verify_emulated(bundle: Path, stored: StoredPlans, *plans: str) -> list[PlanCheck]:
    return verify_plans(Bundle.open(bundle), stored, FLAVOUR, GPU, plans=plans or None)


@pytest.mark.parametrize("form", ["split", "whole"])
def test_plans_that_are_their_graphs_pass(
    tiny_bundle: Path, tmp_path: Path, gpu: EmulatedGpu, split_plans: StoredPlans, form: Form
) -> None:
    stored = split_plans if form == "split" else build_emulated_plans(tiny_bundle, tmp_path, form, 3)
    told: list[tuple[str, int, int]] = []
    checks = verify_plans(Bundle.open(tiny_bundle), stored, FLAVOUR, GPU, on_plan=lambda *plan: told.append(plan))
    assert [check.plan for check in checks] == list(stored.manifest.plans)
    assert told == [(check.plan, index, len(checks)) for index, check in enumerate(checks)]
    assert max(check.error for check in checks) < ROUNDING
    assert {check.tolerance for check in checks} == {2e-2}
    refuse_failed(checks)
    gpu.finish()
    assert gpu.memory.allocated == 0


def test_pictures_lie_in_memory_as_the_plans_want_them(
    tiny_bundle: Path, gpu: EmulatedGpu, split_plans: StoredPlans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison that took channels first where a plan has them last would fail."""
    assert split_plans.split is not None
    pictures = {tensor.name for tensor in split_plans.split.tensors if tensor.channels_last}
    segment = next(one.name for one in split_plans.split.segments if pictures.intersection(one.inputs))
    (check,) = verify_emulated(tiny_bundle, split_plans, segment)
    assert check.error < ROUNDING

    def collect_forgetfully(bundle: Bundle, key: PlanKey) -> tuple[object, list[Network]]:
        split, networks = collect_networks(bundle, key)
        return split, [replace(network, channels_last=frozenset()) for network in networks]

    monkeypatch.setattr(verify, "collect_networks", collect_forgetfully)
    (check,) = verify_emulated(tiny_bundle, split_plans, segment)
    assert not check.passed


def change_outputs(monkeypatch: pytest.MonkeyPatch, plan: str, change: Callable[[str, Array], None]) -> None:
    """Let a plan write something else than its graph says."""
    run = EmulatedPlan._run

    def run_changed(self: EmulatedPlan, addresses: Mapping[str, int]) -> None:
        run(self, addresses)
        for tensor in self.tensors.values():
            if self.name == plan and not tensor.is_input:
                change(tensor.name, self._view(tensor, addresses[tensor.name]))

    monkeypatch.setattr(EmulatedPlan, "_run", run_changed)


def test_a_plan_that_is_off_fails(
    tiny_bundle: Path, gpu: EmulatedGpu, split_plans: StoredPlans, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert split_plans.split is not None
    *_, tensor = split_plans.split.segments[1].outputs

    def scale_up(name: str, values: Array) -> None:
        if name == tensor:
            values *= 1.1

    change_outputs(monkeypatch, "segment_001", scale_up)
    right, wrong = verify_emulated(tiny_bundle, split_plans, "segment_001", "depth")
    assert (right.plan, right.passed) == ("depth", True)
    assert (wrong.plan, wrong.tensor, wrong.passed) == ("segment_001", tensor, False)
    assert wrong.error == pytest.approx(0.1, rel=1e-3)
    with pytest.raises(PlanBuildError, match=r"1 of 2 plans .* segment_001 gives .* 1\.0e-01, 0\.02 is allowed"):
        refuse_failed([right, wrong])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_what_was_not_computed_fails(
    tiny_bundle: Path, gpu: EmulatedGpu, split_plans: StoredPlans, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    change_outputs(monkeypatch, "depth", lambda _, values: values.fill(value))
    (check,) = verify_emulated(tiny_bundle, split_plans, "depth")
    assert check.error >= 1
    assert not check.passed


def test_only_plans_of_the_set_can_be_chosen(tiny_bundle: Path, split_plans: StoredPlans) -> None:
    with pytest.raises(PlanStoreError, match="no plan unet to compare") as caught:
        verify_emulated(tiny_bundle, split_plans, "depth", "unet")
    assert "segment_00" in caught.value.remedy
