"""Styles are found by a file or, where they were chosen beforehand, by their names alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from live2diff_trt.bundle.errors import BundleError, RestyleError
from live2diff_trt.bundle.manifest import WEIGHTS_FILE, Bundle
from live2diff_trt.bundle.style_delta import StyleDelta, read_style_delta, write_style_delta
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.styles import LONGEST_NAME, NamedStyles, StyleFiles
from tests.windows_files import used_in


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, ())


def test_a_name_finds_what_its_file_finds(bundle: Bundle, ink: Path, other_bundle: Path) -> None:
    named, files = NamedStyles(bundle, {"ink": ink, "as another": other_bundle}), StyleFiles(bundle)
    assert named.names == ("ink", "as another")
    assert [weights.identity for weights in named.weights] == [
        files.find(file).identity for file in (ink, other_bundle)
    ]
    assert named.find("as another").changed.keys() == files.find(other_bundle).changed.keys()
    assert named.find(None).identity == files.find(None).identity == ""


@pytest.mark.parametrize("style", ["", "Ink", 7, "ink.safetensors"])
def test_nothing_else_is_found(bundle: Bundle, ink: Path, style: object) -> None:
    named = NamedStyles(bundle, {"ink": ink})
    with pytest.raises(ControlError, match="Choose from ink"):
        named.find(style)
    with pytest.raises(ControlError, match="Choose from ink"):
        named.find(ink)


def test_where_there_are_none_none_is_found(bundle: Bundle) -> None:
    named = NamedStyles(bundle, {})
    assert (named.names, named.weights) == ((), ())
    with pytest.raises(ControlError, match="Name styles when"):
        named.find("ink")


@pytest.mark.parametrize("name", ["", " ink", "ink ", "i\nk", "x" * (LONGEST_NAME + 1)])
def test_a_name_is_one_that_can_be_shown(bundle: Bundle, ink: Path, name: str) -> None:
    with pytest.raises(ControlError, match="can't be named"):
        NamedStyles(bundle, {name: ink})


@pytest.mark.parametrize("name", ["x", "oil paint", "水墨", "x" * LONGEST_NAME])
def test_other_names_are_taken(bundle: Bundle, ink: Path, name: str) -> None:
    assert NamedStyles(bundle, {name: ink}).names == (name,)


def test_a_style_that_is_damaged_is_told_at_once(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "ink.safetensors").write_bytes(b"nothing")
    with pytest.raises(RestyleError):
        NamedStyles(bundle, {"ink": tmp_path / "ink.safetensors"})


def test_so_is_a_bundle_that_was_changed_since_it_was_opened(damaged_bundle: Path, ink: Path) -> None:
    files = StyleFiles(Bundle.open(damaged_bundle, ()))
    data = damaged_bundle / WEIGHTS_FILE
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="hash"):
        files.find(ink)
    data.write_bytes(content)
    assert files.find(ink).changed


@pytest.mark.usefixtures("windows_files")
def test_on_windows_a_style_that_a_server_has_stays_until_it_lets_go(bundle: Bundle, ink: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(ink, tmp_path))
    named = NamedStyles(bundle, {"ink": file})
    with pytest.raises(RestyleError, match="End the streams that use it"):
        write_style_delta(file, StyleDelta({}, "another"), overwrite=True)
    assert read_style_delta(file).identity == named.find("ink").identity
    assert list(tmp_path.iterdir()) == [file]
    del named
    write_style_delta(file, StyleDelta({}, "another"), overwrite=True)


@pytest.mark.usefixtures("windows_files")
def test_on_windows_a_stream_on_the_cpu_uses_no_file_of_its_style_and_closed_none_of_its_bundle(
    tiny_bundle: Path, ink: Path, tmp_path: Path
) -> None:
    file, folder = Path(shutil.copy(ink, tmp_path)), Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    with Stream.open(folder, prompt="a", style=file, options=OnnxRuntimeOptions(threads=1)) as stream:
        assert used_in(folder) != []
        write_style_delta(file, StyleDelta({}, "another"), overwrite=True)
    assert used_in(tmp_path) == []
    assert stream is not None
