"""What the wheel holds: every room's modules under one name, and nothing that belongs to the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "bundle", "model", "export", "engine", "kernels", "runtime", "serve", "evaluation", "conformance", "training",
    "cli", "benchmarks",
)  # fmt: skip
CARRIED = ("serve/page", "training/weights", "bundle/tiny")
"""Folders of a room that are data."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"live2diff_trt/{path.name}" for path in (ROOT / "live2diff_trt").iterdir() if path.is_file()}
    for room in ROOMS:
        expected |= {f"live2diff_trt/{room}/{path.name}" for path in (ROOT / room).iterdir() if path.is_file()}
    for folder in CARRIED:
        expected |= {f"live2diff_trt/{folder}/{path.name}" for path in (ROOT / folder).glob("*")}
    compiled = {name for name in names if name.endswith((".fatbin", ".fatbin.sha256"))}
    assert names - compiled == expected
    # Either every kernel was compiled, or, where no CUDA compiler is found, none.
    kernels = {f"live2diff_trt/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cu")}
    assert kernels <= names
    assert len(compiled) in (0, 2 * len(kernels))


def test_the_wheel_fits_any_python(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name


def test_the_wheel_carries_its_licence_and_its_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "live2diff-trt = live2diff_trt.cli.main:main" in archive.read(entry_points).decode().replace(
            "=", " = "
        ).replace("  ", " ")
    assert any(name.endswith("licenses/LICENSE") for name in names)
