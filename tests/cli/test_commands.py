"""The commands as a person runs them: in a process of their own, with real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

GOLDENS = Path(__file__).parents[1] / "goldens" / "tiny_a"
Command = Callable[..., subprocess.CompletedProcess[str]]


def start(*arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", "from live2diff_trt.cli.main import main; main()", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A test runner in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - nothing here has threads
    )


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def refused(*arguments: object) -> str:
    """Run a command that must fail with one clear message, and return that."""
    result = command(*arguments)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error:") == 1
    return result.stderr


def count_frames(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_real_clip_goes_through_with_its_times_and_sound(
    tiny_bundle: Path, clip: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    result = command(
        "run", "--bundle", tiny_bundle, "--input", clip("bigbuckbunny.mp4"), "--output", out, "--frames", 30
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"frames\s+│ 30 ", result.stdout)
    assert re.search(r"throughput\s+│ \d+\.\d FPS", result.stdout)
    assert count_frames(out) == 30
    with av.open(out) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 64)
        assert container.streams.video[0].average_rate == 25
        assert len(container.streams.audio) == 1


def test_the_same_run_twice_writes_the_same_pictures(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("a/", "b/"):
        assert command("run", tiny_bundle, "-i", "test-pattern:64x64@25,10", "-o", f"{tmp_path}/{name}").returncode == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"frame-{index:06d}.png" for index in range(10)]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_controls_of_a_run(tiny_bundle: Path, clip: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = ["run", tiny_bundle, "-i", clip("bikes.mp4"), "--frames", 45, "-o", f"{tmp_path}/out/"]
    arguments += ["-p", "a fox", "-w", 2, "-p", "a cat", "-w", 1, "--interpolation", "spherical"]
    arguments += ["--then", "0.5:a snowy forest", "--transition", "0.3", "--rewarm-on-cut"]
    result = command(*arguments, "--similar-image-filter", "0.5", "--max-skipped", "3")
    assert result.returncode == 0, result.stderr
    assert re.search(r"frames\s+│ 45 ", result.stdout)
    assert re.search(r"skipped as similar\s+│ \d+ ", result.stdout)
    assert len(list((tmp_path / "out").iterdir())) == 45


def test_ctrl_c_keeps_a_playable_partial_file(tiny_bundle: Path, tmp_path: Path) -> None:
    process = start("run", tiny_bundle, "-i", "test-pattern", "-o", tmp_path / "out.mp4")
    partial = tmp_path / "out.partial.mp4"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "frames" in out
    assert count_frames(partial) >= 1
    assert not (tmp_path / "out.mp4").exists()


def test_a_missing_bundle(tmp_path: Path) -> None:
    assert "there is no bundle at" in refused("run", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("unet.data", lambda data: data[:-100], "it is truncated or foreign"),
        ("unet.data", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "does not have the hash"),
        ("unet.onnx", lambda data: data[: len(data) // 2], "it is truncated or foreign"),
        ("manifest.json", lambda data: data[: len(data) // 2], "can't be read"),
        ("manifest.json", lambda data: data.replace(b'"format": 1', b'"format": 99'), "has format 99"),
    ],
)  # fmt: skip
def test_a_damaged_bundle(damaged_bundle: Path, name: str, damage: Callable[[bytes], bytes], message: str) -> None:
    path = damaged_bundle / name
    path.write_bytes(damage(path.read_bytes()))
    text = refused("run", damaged_bundle, "-i", "test-pattern:64x64@25,9")
    assert message in text
    assert "live2diff-trt export" in text


def test_a_corrupt_graph_whose_hash_was_made_to_fit(damaged_bundle: Path) -> None:
    from live2diff_trt.bundle.manifest import Bundle, write_manifest

    manifest = Bundle.open(damaged_bundle).manifest
    (damaged_bundle / "unet.onnx").write_bytes(b"\x08\x0anonsense")
    write_manifest(damaged_bundle, manifest)
    assert "unet.onnx" in refused("run", damaged_bundle)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"this is no video", "text.mp4"),
        ("empty.mp4", b"", "empty.mp4"),
        ("missing.mp4", None, "missing.mp4"),
    ],
)
def test_an_input_without_frames(
    tiny_bundle: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refused("run", tiny_bundle, "-i", tmp_path / name, "-o", tmp_path / "out.mp4")
    assert not list(tmp_path.glob("out*"))


def test_an_output_that_exists_needs_overwrite(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    arguments = ["run", tiny_bundle, "-i", "test-pattern:64x64@25,9", "-o", out]
    assert "--overwrite" in refused(*arguments)
    assert out.read_bytes() == b"precious"
    assert command(*arguments, "--overwrite").returncode == 0
    assert count_frames(out) == 9


def test_a_prompt_over_the_limit_says_what_was_cut(tiny_bundle: Path) -> None:
    words = " ".join(f"word{index}" for index in range(120))
    result = command("run", tiny_bundle, "-i", "test-pattern:64x64@25,1", "--prompt", words)
    assert result.returncode == 0
    assert "what was cut" in result.stderr
    assert "word119" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--size", "500x500", "The nearest is 512x512"),
        ("--size", "512", "WIDTHxHEIGHT"),
        ("--step-list", "40,30", "does not rise"),
        ("--step-list", "30,a", "is not a step list"),
        ("--step-list", "30,50", "leaves the range"),
        ("--strength", "1.5", "leaves the range"),
        ("--strength", "0.02", "Use 0.04 or more"),
    ],
)
def test_export_refuses_what_can_not_be_had(tmp_path: Path, option: str, value: str, message: str) -> None:
    assert message in refused("export", "--preset", "tiny", "--out", tmp_path / "b", option, value)
    assert not (tmp_path / "b").exists()


def test_export_writes_a_bundle_that_runs_in_half_precision(tmp_path: Path) -> None:
    bundle = tmp_path / "half"
    # At 64x64 the lowest level is one position, whose norms of two values tell signs alone: rounding may turn them.
    options = ["--size", "128x128", "--step-list", "20,30,40", "--dtype", "fp16", "--random-weights", "--seed", 11]
    result = command("export", "--preset", "tiny", "--out", bundle, *options, "--check")
    assert result.returncode == 0, result.stderr
    spec = json.loads((bundle / "manifest.json").read_text())["spec"]
    assert (spec["dtype"], spec["step_list"], spec["width"]) == ("float16", [20, 30, 40], 128)
    assert command("run", bundle, "-i", "test-pattern:64x64@25,10", "-o", f"{tmp_path}/out/").returncode == 0
    with av.open(str(tmp_path / "out" / "frame-000009.png")) as container:
        assert np.std(next(container.decode(video=0)).to_ndarray(format="rgb24")) > 1


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_conformance_with_the_reference(backend: str) -> None:
    result = command("conformance", GOLDENS, "--steps", 2, "--backend", backend, "--tolerance", "1e-4", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["steps"], report["backend"], report["passed"]) == (2, backend, True)
    for loop in ("open_loop", "closed_loop"):
        assert report[loop]["worst_error"] < 1e-5
        # warm-up: 2 outputs and x0; 20 ticks: 1 row, then 2; x0 from the second on
        assert report[loop]["compared"] == 3 + 1 + 19 * 2 + 19


def test_conformance_fails_above_the_tolerance() -> None:
    result = command("conformance", GOLDENS, "--steps", 1, "--tolerance", "1e-9")
    assert result.returncode == 1
    assert "FAILED" in result.stdout


def test_conformance_says_what_is_recorded(tmp_path: Path) -> None:
    shutil.copytree(GOLDENS, tmp_path / "goldens")
    text = refused("conformance", tmp_path / "goldens", "--steps", 7)
    assert "T1, T2, T3" in text


def test_run_needs_exactly_one_bundle(tiny_bundle: Path) -> None:
    assert "run needs one bundle" in refused("run")
    assert "run needs one bundle" in refused("run", tiny_bundle, "--bundle", tiny_bundle)
