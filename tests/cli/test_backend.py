"""Which backend and which plans a command takes, on an emulated GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from live2diff_trt.cli import backend as backend_module
from live2diff_trt.cli.backend import choose_backend
from live2diff_trt.cli.choices import BackendChoice
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from tests.runtime.emulated_gpu import FLAVOUR, GPU, build_emulated_plans

ON_CPU = OnnxRuntimeOptions()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "detect_gpu", lambda _: GPU)
    monkeypatch.setattr(backend_module, "choose_flavour", lambda *_: (FLAVOUR, "it is emulated"))


@pytest.mark.usefixtures("emulated")
def test_a_style_takes_refittable_plans_if_there_are_any_and_others_else(tiny_bundle: Path, tmp_path: Path) -> None:
    on_gpu = TensorRTOptions(plans=tmp_path)
    build_emulated_plans(tiny_bundle, tmp_path, "split", 2)
    chosen = [choose_backend(choice, tiny_bundle, ON_CPU, on_gpu, restyled=True) for choice in BackendChoice]
    assert chosen == [on_gpu, ON_CPU, on_gpu]
    build_emulated_plans(tiny_bundle, tmp_path, "split", 2, refittable=True)
    refittable = TensorRTOptions(plans=tmp_path, refittable=True)
    chosen = [choose_backend(choice, tiny_bundle, ON_CPU, on_gpu, restyled=True) for choice in BackendChoice]
    assert chosen == [refittable, ON_CPU, refittable]
    assert choose_backend(BackendChoice.auto, tiny_bundle, ON_CPU, on_gpu) == on_gpu


@pytest.mark.usefixtures("emulated")
def test_a_bundle_that_was_not_built_is_run_on_the_cpu_unless_tensorrt_was_named(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_gpu = TensorRTOptions(plans=tmp_path)
    for restyled in (False, True):
        assert choose_backend(BackendChoice.auto, tiny_bundle, ON_CPU, on_gpu, restyled=restyled) == ON_CPU
        assert choose_backend(BackendChoice.tensorrt, tiny_bundle, ON_CPU, on_gpu, restyled=restyled) == on_gpu
    assert capsys.readouterr().err.count("it was not built for this GPU") == 2
