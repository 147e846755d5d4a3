"""Every plan of the tiny bundle computes what its graph says. Run with ``pytest -m gpu``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.build import BuildOptions, build_plans
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import PlanStore
from live2diff_trt.engine.verify import refuse_failed
from live2diff_trt.runtime.cuda_session import require_gpu
from live2diff_trt.runtime.verify import verify_plans

pytestmark = pytest.mark.gpu


@pytest.fixture
def bundle(form: Form, tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """The tiny bundle; for a whole UNet one of 128x128, since at 64x64 norms of two values magnify what TF32 leaves."""
    if form == "whole":
        from live2diff_trt.export.bundle import export_bundle
        from live2diff_trt.export.presets import TINY
        from live2diff_trt.export.weights_source import RandomWeights

        tiny_bundle = tmp_path / "bundle"
        export_bundle(replace(TINY, width=128, height=128, dtype="float16"), RandomWeights(seed=3), tiny_bundle)
    return Bundle.open(tiny_bundle)


@pytest.mark.parametrize("form", ["split", "whole"])
def test_plans_compute_what_their_graphs_say(bundle: Bundle, tmp_path: Path, form: Form) -> None:
    gpu = require_gpu(0)
    capability = gpu.compute_capability
    flavour, _ = choose_flavour("auto", capability)
    stored = build_plans(bundle, flavour, PlanStore(tmp_path / "plans"), BuildOptions(capability, capability, form))
    checks = verify_plans(bundle, stored, flavour, gpu)
    assert [check.plan for check in checks] == list(stored.manifest.plans)
    refuse_failed(checks)
