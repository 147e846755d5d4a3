"""Commands by the rules of Windows: what they replace, and what they say of what is in use."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from live2diff_trt.bundle.errors import RestyleError
from live2diff_trt.bundle.style_delta import read_style_delta
from live2diff_trt.cli.main import app
from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.source import FileSource
from tests.windows_files import used_in

pytestmark = pytest.mark.usefixtures("windows_files")


def command(*words: object) -> BaseException | None:
    """Run a command in this process; return what it raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return None if result.exit_code == 0 else result.exception


def stream(bundle: Path, source: object, out: object) -> BaseException | None:
    return command("run", bundle, "-i", source, "-o", out, "--backend", "onnxruntime", "--threads", 1, "--overwrite")


def test_outputs_of_run_replace_those_before(tiny_bundle: Path, tmp_path: Path) -> None:
    video, pictures = tmp_path / "out.mp4", tmp_path / "frames"
    for frames in (9, 10):
        assert stream(tiny_bundle, f"test-pattern:64x64@25,{frames}", video) is None
        assert stream(tiny_bundle, f"test-pattern:64x64@25,{frames}", f"{pictures}/") is None
        assert used_in(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == [pictures, video]
    assert len(list(pictures.iterdir())) == 10
    with FileSource(video) as source:
        assert len(list(source)) == 10


def test_a_video_that_is_read_is_not_replaced_and_what_came_of_it_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    video, part = tmp_path / "same.mp4", tmp_path / "same.partial.mp4"
    assert stream(tiny_bundle, "test-pattern:64x64@25,10", video) is None
    before = video.read_bytes()
    error = stream(tiny_bundle, video, video)
    assert isinstance(error, SinkError)
    assert error.remedy == f"Close what has it open, and rename {part}: that is the whole video"
    assert (video.read_bytes(), used_in(tmp_path)) == (before, [])
    with FileSource(part) as source:
        assert len(list(source)) == 10


def test_a_style_is_replaced_unless_it_is_in_use(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    style = tmp_path / "ink.safetensors"
    restyle = ("restyle", tiny_bundle, "--from", other_bundle, "--out", style, "--overwrite")
    assert command(*restyle) is None
    held = read_style_delta(style)
    error = command(*restyle)
    assert isinstance(error, RestyleError)
    assert error.remedy.startswith("End the streams that use it")
    assert read_style_delta(style).identity == held.identity
    assert list(tmp_path.iterdir()) == [style]
    del held
    assert command(*restyle) is None
