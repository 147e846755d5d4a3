"""The doctor finds what a run on the GPU lacks, says what to do, and its exit code is the verdict."""

from __future__ import annotations

import builtins
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.cli.main import app
from live2diff_trt.engine import doctor as engine_doctor
from live2diff_trt.engine.doctor import Finding, examine_cache, examine_kernels, examine_onnxruntime, is_fit
from live2diff_trt.engine.errors import GpuError
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.plan_manifest import MANIFEST_FILE, PlanKey, PlanManifest
from live2diff_trt.engine.store import PlanStore, StoredPlans, generator, record_files
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime import doctor as runtime_doctor
from live2diff_trt.runtime.doctor import examine, examine_codecs

ADA = Gpu("NVIDIA GeForce RTX 4090", (8, 9), "580.65.06")
FREE = 20_000_000_000


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, *, cuda: tuple[int, int] = (13, 0)) -> None:
    """Let everything believe in a GPU with FREE bytes, or in none."""
    from live2diff_trt.runtime import cuda_session, device_memory_use

    for module in (engine_doctor, cuda_session):
        monkeypatch.setattr(module, "detect_gpu", lambda _: gpu)
    monkeypatch.setattr(engine_doctor, "driver_cuda_version", lambda: cuda)
    monkeypatch.setattr(device_memory_use, "free_memory", lambda _: FREE)


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    pretend_gpu(monkeypatch, ADA)
    return ADA


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, None)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make packages look as if they were not installed."""

    def hide_packages(*packages: str) -> None:
        def refuse(name: str, original: Callable[..., ModuleType], *arguments: Any) -> ModuleType:
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return original(name, *arguments)

        load, load_dynamically = builtins.__import__, importlib.import_module
        monkeypatch.setattr(builtins, "__import__", lambda name, *rest: refuse(name, load, *rest))
        others = (sys.modules[f"live2diff_trt.engine.{name}"] for name in ("gpu", "onnxruntime_module"))
        for module in (engine_doctor, *others):
            monkeypatch.setattr(module, "import_module", lambda name: refuse(name, load_dynamically))

    return hide_packages


@pytest.fixture
def options(tmp_path: Path) -> TensorRTOptions:
    return TensorRTOptions(form="whole", plans=tmp_path / "plans")


def write_plans(bundle: Bundle, options: TensorRTOptions, gpu: Gpu = ADA) -> StoredPlans:
    """Write plans that are valid in every respect, but that TensorRT would not load."""
    flavour, _ = choose_flavour("auto", gpu.compute_capability)
    key = PlanKey(bundle.digest, flavour.name, flavour.version, gpu.compute_capability, options.form, bundle.spec.steps)
    store = PlanStore(options.plans)
    with store.writing(key) as folder:
        (folder / "unet.plan").write_bytes(b"a plan")
        plans, structures, files = {"unet": "unet.plan"}, {"unet": "u"}, record_files(folder)
        manifest = PlanManifest(key, key.target, plans, structures, files, None, None, 1.0, generator())
        (folder / MANIFEST_FILE).write_text(manifest.to_text())
    return store.open(key)


def named(findings: list[Finding], subject: str) -> Finding:
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


# the machine


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_everything_else_is_examined_all_the_same(options: TensorRTOptions) -> None:
    findings = examine(None, options)
    assert named(findings, "GPU").state == "missing"
    assert "driver" in named(findings, "GPU").remedy
    assert named(findings, "TensorRT").state == "ok"
    assert "ahead of time" in named(findings, "TensorRT").detail
    subjects = {finding.subject for finding in findings}
    assert {"tensorrt", "tensorrt-rtx", "NVRTC", "kernels", "ONNX Runtime", "libx264 encoder", "plans"} <= subjects
    assert "GPU memory" not in subjects
    assert not is_fit(findings)


def test_a_machine_that_lacks_nothing_is_fit(ada: Gpu, options: TensorRTOptions) -> None:
    findings = examine(None, options)
    assert is_fit(findings)
    assert ada.name in named(findings, "GPU").detail
    assert "8.9" in named(findings, "GPU").detail
    assert named(findings, "driver").detail == "580.65.06, speaks CUDA 13.0"
    assert named(findings, "GPU memory").detail == "20.00 GB free"
    assert "tensorrt-rtx is taken" in named(findings, "TensorRT").detail


def test_whatever_is_not_ok_has_a_remedy(no_gpu: None, options: TensorRTOptions, hide: Callable[..., None]) -> None:
    hide("onnxruntime", "cuda")
    findings = examine(None, options)
    assert {"GPU", "NVRTC", "kernels", "ONNX Runtime"} <= {one.subject for one in findings if one.state != "ok"}
    assert all(bool(finding.remedy) == (finding.state != "ok") for finding in findings)
    assert all(not text.endswith(".") for finding in findings for text in (finding.detail, finding.remedy))


def test_a_gpu_of_another_number_is_named(monkeypatch: pytest.MonkeyPatch, options: TensorRTOptions) -> None:
    def refuse(device_id: int) -> Gpu:
        raise GpuError(f"there is no GPU {device_id}", "Choose --device from 0 to 1")

    monkeypatch.setattr(engine_doctor, "detect_gpu", refuse)
    found = named(examine(None, replace(options, device=5)), "GPU")
    assert (found.state, found.detail, found.remedy) == ("missing", "there is no GPU 5", "Choose --device from 0 to 1")


def test_without_cuda_core_the_gpu_can_not_be_asked_for(options: TensorRTOptions, hide: Callable[..., None]) -> None:
    hide("cuda")
    findings = examine(None, options)
    assert "live2diff-trt[cuda]" in named(findings, "GPU").remedy
    assert named(findings, "NVRTC").state == named(findings, "kernels").state == "missing"


def test_the_flavour_that_was_named_is_not_replaced(ada: Gpu, options: TensorRTOptions) -> None:
    findings = examine(None, replace(options, flavour="tensorrt"))
    assert named(findings, "TensorRT").state == "missing"
    assert named(findings, "tensorrt-rtx").state == "ok"
    assert not is_fit(findings)


def test_a_gpu_that_no_flavour_knows(monkeypatch: pytest.MonkeyPatch, options: TensorRTOptions) -> None:
    pretend_gpu(monkeypatch, Gpu("Tesla P100", (6, 0), "580.65.06"))
    findings = examine(None, options)
    assert named(findings, "TensorRT").state == "missing"
    assert "6.0" in named(findings, "NVRTC").detail


def test_a_driver_older_than_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, ADA, cuda=(12, 8))
    compiler, kernels = examine_kernels(ADA)
    assert (compiler.state, kernels.state) == ("missing", "missing")
    assert "12.8" in compiler.detail
    assert compiler.remedy == kernels.remedy == "Update the driver to one that speaks CUDA 13"


def test_fat_binaries_need_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, ADA, cuda=(12, 8))
    monkeypatch.setattr(engine_doctor, "_find_fat_binaries", lambda: True)
    compiler, kernels = examine_kernels(ADA)
    assert (compiler.state, kernels.state) == ("warn", "ok")
    assert "fat binaries" in kernels.detail


def test_onnxruntime_is_not_needed_on_a_gpu(hide: Callable[..., None]) -> None:
    assert "CPUExecutionProvider" in examine_onnxruntime().detail
    hide("onnxruntime")
    found = examine_onnxruntime()
    assert found.state == "warn"
    assert "live2diff-trt[onnxruntime]" in found.remedy


def test_a_codec_that_is_missing_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.subject for one in examine_codecs() if one.state == "ok"} >= {"h264 decoder", "libx264 encoder"}
    monkeypatch.setattr(runtime_doctor, "_CODECS", (("no_such_codec", "w", "nothing can be written"),))
    (found,) = examine_codecs()
    assert (found.subject, found.state) == ("no_such_codec encoder", "warn")
    assert "nothing can be written" in found.detail


def test_a_cache_that_can_not_be_written(tmp_path: Path) -> None:
    assert examine_cache(tmp_path).detail == f"kept in {tmp_path}"
    assert examine_cache(tmp_path / "a" / "b").detail == f"kept in {tmp_path / 'a' / 'b'}, which will be made"
    (tmp_path / "file").write_bytes(b"")
    found = examine_cache(tmp_path / "file" / "plans")
    assert found.state == "warn"
    assert "--plans" in found.remedy


# a bundle


def test_a_bundle_whose_plans_were_never_opened(tiny_bundle: Path, ada: Gpu, options: TensorRTOptions) -> None:
    write_plans(Bundle.open(tiny_bundle), options)
    findings = examine(tiny_bundle, options)
    assert named(findings, "bundle").detail == "64x64, T = 2, float32"
    assert "sm89, whole, 2 rows" in named(findings, "bundle's plans").detail
    assert named(findings, "memory needed").state == "warn"
    assert is_fit(findings)


@pytest.mark.parametrize(("overhead", "fits"), [(0, True), (FREE, False)])
def test_the_memory_that_was_measured_is_compared_with_what_is_free(
    tiny_bundle: Path, ada: Gpu, options: TensorRTOptions, overhead: int, fits: bool
) -> None:
    stored = write_plans(Bundle.open(tiny_bundle), options)
    measured = {"scratch_bytes": {"unet": 3_000_000}, "weight_bytes": {"unet": 7_000_000}, "overhead_bytes": overhead}
    stored.facts(ada).save_measured(measured)
    findings = examine(tiny_bundle, options)
    found = named(findings, "memory needed")
    assert (found.state == "ok", is_fit(findings)) == (fits, fits)
    assert "weights 7 MB" in found.detail
    assert "scratch 3 MB" in found.detail
    assert ("--step-list" in found.remedy) != fits


def test_a_bundle_without_plans_names_the_command(tiny_bundle: Path, ada: Gpu, options: TensorRTOptions) -> None:
    findings = examine(tiny_bundle, options)
    found = named(findings, "bundle's plans")
    assert found.state == "missing"
    assert "live2diff-trt build BUNDLE --flavour tensorrt-rtx --form whole --rows 2" in found.remedy


def test_damaged_plans_are_missing(tiny_bundle: Path, ada: Gpu, options: TensorRTOptions) -> None:
    stored = write_plans(Bundle.open(tiny_bundle), options)
    (stored.folder / "unet.plan").write_bytes(b"b plan")
    found = named(examine(tiny_bundle, options), "bundle's plans")
    assert found.state == "missing"
    assert "does not have the hash" in found.detail


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_plans_are_listed(tiny_bundle: Path, options: TensorRTOptions) -> None:
    assert named(examine(tiny_bundle, options), "bundle's plans").state == "missing"
    write_plans(Bundle.open(tiny_bundle), options)
    found = named(examine(tiny_bundle, options), "bundle's plans")
    assert found.state == "warn"
    assert "sm89, whole, 2 rows" in found.detail


def test_no_bundle_at_all(tmp_path: Path, ada: Gpu, options: TensorRTOptions) -> None:
    findings = examine(tmp_path / "nothing", options)
    assert "there is no bundle" in named(findings, "bundle").detail
    assert not is_fit(findings)


@pytest.mark.parametrize(
    ("change", "form", "message"),
    [
        ({"window": 12}, "whole", "a window of 12 frames"),
        ({"heads": 1}, "split", "heads of 64 channels"),
        ({"heads": 1}, "whole", None),
    ],
)
def test_a_stream_that_kernels_do_not_exist_for(
    tiny_bundle: Path, options: TensorRTOptions, change: dict[str, int], form: Any, message: str | None
) -> None:
    spec = replace(Bundle.open(tiny_bundle).spec, **change)  # type: ignore[arg-type]
    found = runtime_doctor._examine_spec(spec, replace(options, form=form))
    assert found.state == ("missing" if message else "ok")
    assert (message or "64x64") in found.detail


# the command


def test_the_exit_code_is_the_verdict(tiny_bundle: Path, ada: Gpu, options: TensorRTOptions) -> None:
    assert run("--plans", options.plans)[0] == 0
    code, text = run(tiny_bundle, "--plans", options.plans, "--form", "whole")
    assert code == 1
    assert "missing  bundle's plans:" in text
    assert "→ Build them again with `live2diff-trt build" in text
    write_plans(Bundle.open(tiny_bundle), options)
    code, text = run(tiny_bundle, "--plans", options.plans, "--form", "whole")
    assert code == 0
    assert text.endswith("A run on this GPU will work.\n")
    assert run(tiny_bundle, "--plans", options.plans, "--form", "split")[0] == 1


@pytest.mark.usefixtures("no_gpu")
def test_json_says_the_same(options: TensorRTOptions) -> None:
    code, text = run("--json", "--plans", options.plans)
    report = json.loads(text)
    assert (code, report["fit"]) == (1, False)
    assert [Finding(**finding) for finding in report["findings"]] == examine(None, replace(options, form="split"))


def test_nothing_but_the_base_install_is_needed(tmp_path: Path) -> None:
    """In a process of its own: what other tests imported must not be there."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys(["cuda", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "torch"]))
import typer
from live2diff_trt.cli.doctor import doctor
app = typer.Typer()
app.command()(doctor)
sys.argv = ["doctor", "--json", "--plans", {str(tmp_path)!r}]
app()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (1, "")
    states = {finding["subject"]: finding["state"] for finding in json.loads(result.stdout)["findings"]}
    assert {subject for subject, state in states.items() if state == "missing"} == {
        "GPU",
        "TensorRT",
        "NVRTC",
        "kernels",
    }
    assert states["libx264 encoder"] == "ok"
