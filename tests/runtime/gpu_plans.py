"""Plans that tests stream on where a GPU is: for two rows, built by the first test that wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.build import BuildOptions, build_plans
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import PlanStore
from live2diff_trt.runtime.cuda_session import require_gpu


def form_of(request: pytest.FixtureRequest) -> Form:
    """Return the form of plans that a test is for; split, if it says nothing of it."""
    call = getattr(request.node, "callspec", None)
    return "split" if call is None else call.params.get("form", "split")


def build_for_gpu(bundle: Path, root: Path, form: Form, *, refittable: bool = False) -> None:
    """Build plans of a bundle for this machine's GPU, unless they are there."""
    gpu = require_gpu(0).compute_capability
    flavour, _ = choose_flavour("auto", gpu)
    options = BuildOptions(gpu, gpu, form, rows=2, refittable=refittable)
    build_plans(Bundle.open(bundle), flavour, PlanStore(root), options)
