"""``live2diff-trt build`` as a person runs it, on a machine without a GPU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.cli.build import read_compute_capability
from live2diff_trt.engine.store import PlanStore


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
