"""``live2diff-trt build`` as a person runs it, on a machine without a GPU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.cli.build import read_compute_capability
from live2diff_trt.cli.main import app
from live2diff_trt.engine import build as engine_build
from live2diff_trt.engine.errors import GpuError, PlanBuildError
from live2diff_trt.engine.gpu_facts import GpuFacts
from live2diff_trt.engine.store import PlanStore, StoredPlans
from live2diff_trt.engine.verify import PlanCheck
from live2diff_trt.runtime import verify as runtime_verify
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_gpu import FLAVOUR, GPU, install_emulated_gpu
from tests.runtime.emulated_graphs import GraphCache, build_emulated_plan
from tests.runtime.emulated_plans import EmulatedPlanRuntime

cli_build = import_module("live2diff_trt.cli.build")


def start(*arguments: object, **environment: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", "from live2diff_trt.cli.main import main; main()", "build", *map(str, arguments)]
    usual = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**usual, **{name: str(value) for name, value in environment.items()}},
        # A test runner in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - nothing here has threads
    )


def build(*arguments: object, **environment: object) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def refused(*arguments: object) -> str:
    """Run a build that must fail with one clear message, and return that."""
    code, _, err = build(*arguments)
    assert code == 1, err
    assert "Traceback" not in err
    assert err.count("error:") == 1
    return err


def test_plans_are_built_ahead_and_found_again(tiny_bundle: Path, tmp_path: Path) -> None:
    code, out, err = build(tiny_bundle, "--target-cc", "8.6", "--rows", 3, LIVE2DIFF_TRT_CACHE=tmp_path)
    assert code == 0, err
    line = re.fullmatch(r"(\S+): (\d+) MB in (\d+\.\d) s\n", out)
    assert line is not None, out
    folder = Path(line[1])
    (key,) = PlanStore(tmp_path).find(Bundle.open(tiny_bundle).digest)
    assert PlanStore(tmp_path).open(key).folder == folder
    assert (key.target, key.rows, key.form, key.refittable) == ((8, 6), 3, "split", False)
    assert round(PlanStore(tmp_path).open(key).bytes / 1e6) == int(line[2])
    assert "tensorrt-rtx: version" in err

    written = (folder / "plans.json").stat().st_mtime_ns
    code, again, err = build(tiny_bundle, "--target-cc", "8.6", "--rows", 3, "--plans", tmp_path)
    assert code == 0, err
    assert again.split(":")[0] == str(folder)
    assert (folder / "plans.json").stat().st_mtime_ns == written


def test_ctrl_c_ends_a_build_and_leaves_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    process = start(tiny_bundle, "--target-cc", "8.9", "--form", "whole", "--plans", tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("depth.plan")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # it builds the whole UNet now, which takes many seconds
    interrupted = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - interrupted < 8
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "ERROR" not in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_a_gpu_the_target_must_be_named(tiny_bundle: Path) -> None:
    text = refused(tiny_bundle)
    assert "no GPU" in text
    assert "--target-cc 8.9" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-cc", "8.9", "--flavour", "tensorrt"], "the flavour that was asked for can't be used"),
        (["--target-cc", "8.7"], "no plans can be built for compute capability 8.7"),
        (["--target-cc", "ada"], "is not a compute capability"),
        (["--target-cc", "8.9", "--refittable"], "a refittable plan can't be built without a GPU"),
        (["--target-cc", "8.9", "--verify"], "this machine has no GPU of compute capability 8.9 to run them"),
    ],
)
def test_what_can_not_be_had_is_refused(tiny_bundle: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in refused(tiny_bundle, "--plans", tmp_path, *arguments)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_bundle(tmp_path: Path) -> None:
    assert "there is no bundle at" in refused(tmp_path / "nothing", "--target-cc", "8.9")


def test_compute_capabilities_are_read() -> None:
    assert read_compute_capability("12.0") == (12, 0)
    for text in ("8", "8.9.1", "sm89", "8,9", ""):
        with pytest.raises(SpecError, match=r"MAJOR\.MINOR"):
            read_compute_capability(text)


@dataclass(frozen=True)
class Bench:
    """A machine with an emulated GPU, whose plans are their graphs."""

    bundle: Path
    root: Path
    gpu: EmulatedGpu

    def build(self, *arguments: object) -> Result:
        words = ["build", self.bundle, "--plans", self.root, *arguments]
        return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "300", "NO_COLOR": "1"})

    def stored(self) -> StoredPlans:
        store = PlanStore(self.root)
        (key,) = store.find(Bundle.open(self.bundle).digest)
        return store.open(key)

    def facts(self) -> GpuFacts:
        return self.stored().facts(GPU)


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphCache]:
    cache = GraphCache()
    yield cache
    cache.close()


@pytest.fixture
def bench(tiny_bundle: Path, tmp_path: Path, graphs: GraphCache, monkeypatch: pytest.MonkeyPatch) -> Bench:
    gpu = install_emulated_gpu(monkeypatch, graphs)
    monkeypatch.setattr(runtime_verify, "PlanRuntime", lambda _, caches: EmulatedPlanRuntime(gpu, graphs, caches))
    monkeypatch.setattr(engine_build, "build_plan", build_emulated_plan)
    monkeypatch.setattr(cli_build, "detect_gpu", lambda _: GPU)
    monkeypatch.setattr(cli_build, "choose_flavour", lambda *_: (FLAVOUR, "it is emulated"))
    return Bench(tiny_bundle, tmp_path, gpu)


def test_plans_for_this_gpu_are_opened_once(bench: Bench) -> None:
    result = bench.build()
    assert result.exit_code == 0, result.output
    folder, memory = result.stdout.splitlines()
    assert re.fullmatch(r"\S+: \d+ MB in \d+\.\d s", folder)
    assert re.match(r"GPU memory: \d+\.\d\d GB: .*kv-cache ring", memory)
    assert set(bench.facts().load_measured()) == {"scratch_bytes", "weight_bytes", "overhead_bytes"}
    assert bench.facts().load_runtime_caches() == {"all": b"compiled"}
    bench.gpu.finish()
    assert bench.gpu.memory.allocated == 0


@pytest.mark.parametrize("arguments", [["--no-open"], ["--target-cc", "8.6"]])
def test_plans_are_not_opened_unasked_or_for_another_gpu(bench: Bench, arguments: list[str]) -> None:
    result = bench.build(*arguments)
    assert result.exit_code == 0, result.output
    assert "GPU memory" not in result.stdout
    assert bench.gpu.works == []
    assert bench.facts().load_measured() == {}


def test_plans_for_another_gpu_can_not_be_verified(bench: Bench) -> None:
    result = bench.build("--target-cc", "8.6", "--verify")
    assert isinstance(result.exception, GpuError)
    assert "no GPU of compute capability 8.6" in str(result.exception)
    assert list(bench.root.iterdir()) == []


def test_verified_plans_are_tabulated(bench: Bench) -> None:
    result = bench.build("--no-open", "--verify", "--form", "whole")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("passed") == len(bench.stored().manifest.plans)
    assert "FAILED" not in result.stdout


def test_a_plan_that_is_off_is_shown_and_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [PlanCheck("depth", "depth_map", 1e-4, 1e-3), PlanCheck("unet", "model_output", 0.5, 1e-3)]
    monkeypatch.setattr(runtime_verify, "verify_plans", lambda *_: checks)
    result = bench.build("--no-open", "--verify")
    assert isinstance(result.exception, PlanBuildError)
    assert "unet gives model_output" in result.exception.problem
    rows = [line for line in result.stdout.splitlines() if "depth_map" in line or "model_output" in line]
    assert [("passed" in row, "FAILED" in row) for row in rows] == [(True, False), (False, True)]
    assert "5.0e-01" in rows[1]
