"""What tests of whole streams share: plans, the emulated GPU or the real one that they run on, and styles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live2diff_trt.bundle.style_delta import StyleDelta, write_style_delta
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.engine.restyle import compare_bundles
from tests.runtime.emulated_bench import Bench
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache
from tests.runtime.gpu_plans import build_for_gpu, form_of


@pytest.fixture(scope="module")
def bench(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    graphs = GraphCache()
    yield Bench(tiny_bundle, tmp_path_factory.mktemp("plans"), graphs)
    graphs.close()


@pytest.fixture
def gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    return install_emulated_gpu(monkeypatch, bench.graphs)


@pytest.fixture(scope="module")
def plans_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture
def plans(tiny_bundle: Path, plans_root: Path, request: pytest.FixtureRequest) -> Path:
    """Plans for this machine's GPU, of the form that a test is for, or split."""
    build_for_gpu(tiny_bundle, plans_root, form_of(request))
    return plans_root


@pytest.fixture(scope="module")
def ink(tiny_bundle: Path, other_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The style of the other bundle, as a file."""
    path = tmp_path_factory.mktemp("styles") / "ink.safetensors"
    write_style_delta(path, _find_delta(tiny_bundle, other_bundle))
    return path


@pytest.fixture(scope="module")
def few(tiny_bundle: Path, other_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A style that changes only some of what the other one does."""
    delta = _find_delta(tiny_bundle, other_bundle)
    values = {name: -values for name, values in delta.values.items() if "mid_block" in name}
    path = tmp_path_factory.mktemp("styles") / "few.safetensors"
    write_style_delta(path, StyleDelta(values, delta.bundle_digest))
    return path


def _find_delta(bundle: Path, other: Path) -> StyleDelta:
    return compare_bundles(BundleInitialisers.open(bundle), BundleInitialisers.open(other))
