"""What tests of the whole device runtime share: a bench of plans, and the emulated GPU that they run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.emulated_bench import Bench
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import install_emulated_gpu
from tests.runtime.emulated_plans import GraphCache


@pytest.fixture(scope="module")
def bench(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    graphs = GraphCache()
    yield Bench(tiny_bundle, tmp_path_factory.mktemp("plans"), graphs)
    graphs.close()


@pytest.fixture
def gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    return install_emulated_gpu(monkeypatch, bench.graphs)
