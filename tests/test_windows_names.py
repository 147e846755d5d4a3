"""Paths and names as Windows has them: drives are no schemes, folders no hub ids, and what we write can be named."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from live2diff_trt.bundle import cache_folder
from live2diff_trt.bundle.cache_folder import cache_root
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.shipped import SHIPPED_BUNDLE
from live2diff_trt.cli.checkpoint_options import read_scaled, read_token
from live2diff_trt.cli.serve import _read_styles
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.networks import collect_networks
from live2diff_trt.engine.plan_manifest import CONSTANTS_FILE, MANIFEST_FILE, Form, PlanKey
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.locate import is_hub_id, locate
from live2diff_trt.runtime import sink, source_files
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.sink import FolderSink, VideoSink, open_sink
from live2diff_trt.runtime.source import open_source
from live2diff_trt.runtime.source_address import scheme_of
from tests.windows_files import is_possible_name

ROOT = Path(__file__).parents[1]
PATHS = (
    r"C:\clips\a.mp4",
    "C:/clips/a.mp4",
    "c://clips/a.mp4",
    "C:a.mp4",
    r"\\server\share\a.mp4",
    "//server/share/a.mp4",
    r"\\?\C:\clips\a.mp4",
    r"clips\a.mp4",
)


class WindowsPath(PureWindowsPath):
    """A path on a machine of Windows on which there is nothing but the folder ``C:\\there``."""

    def is_dir(self) -> bool:
        return self == PureWindowsPath("C:/there")

    def exists(self) -> bool:
        return self.is_dir()

    def glob(self, pattern: str) -> Iterator[WindowsPath]:
        yield from ()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_no_address(path: str) -> None:
    assert scheme_of(path) is None
    with pytest.raises(SourceError, match="there is no file"):
        open_source(path)


def test_addresses_are_still_addresses() -> None:
    addresses = ["rtmp://server/live/key", "RTSP://camera", "udp://0.0.0.0:5000", "file:///C:/clips/a.mp4"]
    assert [scheme_of(address) for address in addresses] == ["rtmp", "rtsp", "udp", "file"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (r"C:\out\a.mp4", VideoSink),
        ("C:/out/a.MKV", VideoSink),
        ("C:\\out\\", FolderSink),
        ("C:/out.frames/", FolderSink),
        ("C:\\out.frames\\", FolderSink),
        (r"C:\there", FolderSink),
        (r"\\server\share\frames", FolderSink),
    ],
)
def test_outputs_on_windows_are_told_apart(monkeypatch: pytest.MonkeyPatch, name: str, kind: type) -> None:
    monkeypatch.setattr(sink, "Path", WindowsPath)
    monkeypatch.setattr(sink, "os", SimpleNamespace(sep="\\"))
    monkeypatch.setattr(sink, "VideoSink", lambda *_, **__: object.__new__(VideoSink))
    assert type(open_sink(name, width=96, height=64, frame_rate=Fraction(25))) is kind


@pytest.mark.parametrize(
    ("name", "opened"),
    [("Integrated Camera", "video=Integrated Camera"), ("video=Cam:audio=Mic", "video=Cam:audio=Mic")],
)
def test_cameras_on_windows_are_found_by_name(monkeypatch: pytest.MonkeyPatch, name: str, opened: str) -> None:
    asked: list[tuple[str, object]] = []

    def note(device: str, mode: str, format: str) -> object:  # noqa: A002 - PyAV's name
        asked.append((device, format))
        raise OSError("there is none")

    monkeypatch.setattr(source_files, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(source_files, "av", SimpleNamespace(open=note))
    with pytest.raises(SourceError, match="Check that it is plugged in"):
        open_source(f"camera:{name}")
    assert asked == [(opened, "dshow")]


@pytest.mark.parametrize("path", [*PATHS, r"models\sd15", r"C:\models\sd15", "C:/models/sd15", r".\sd15"])
def test_a_path_is_no_hub_id(path: str) -> None:
    assert not is_hub_id(path)
    with pytest.raises(CheckpointError, match="there is no base model at"):
        locate(path, "base model", offline=False, choose=lambda *_: ())
    assert is_hub_id("runwayml/stable-diffusion-v1-5")


def test_a_drives_colon_is_no_separator() -> None:
    assert read_scaled(r"C:\loras\ink.safetensors") == (r"C:\loras\ink.safetensors", 1.0)
    assert read_scaled(r"C:\loras\ink.safetensors:0.5") == (r"C:\loras\ink.safetensors", 0.5)
    assert read_token(r"C:\words\ink.pt") == (r"C:\words\ink.pt", None)
    assert read_token(r"C:\words\ink.pt:<ink>") == (r"C:\words\ink.pt", "<ink>")
    assert _read_styles([r"ink=C:\styles\ink=2.safetensors"]) == {"ink": Path(r"C:\styles\ink=2.safetensors")}


def test_what_can_be_made_again_is_kept_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"LOCALAPPDATA": r"C:\Users\ada\AppData\Local", "XDG_CACHE_HOME": "/elsewhere"}
    monkeypatch.setattr(cache_folder, "os", SimpleNamespace(name="nt", environ=environment))
    monkeypatch.setattr(cache_folder, "Path", PureWindowsPath)
    assert str(cache_root()) == r"C:\Users\ada\AppData\Local\live2diff-trt"
    environment["LIVE2DIFF_TRT_CACHE"] = r"D:\kept"
    assert str(cache_root()) == r"D:\kept"


def assert_distinct_names(names: list[str]) -> None:
    """They can all be in one folder, where capital letters make no difference."""
    assert [name for name in names if not is_possible_name(name)] == []
    assert len({name.casefold() for name in names}) == len(names) > 1


@pytest.mark.parametrize("form", ["split", "whole"])
def test_files_of_plans_can_be_named(form: Form) -> None:
    bundle = Bundle.open(SHIPPED_BUNDLE, files=())
    key = PlanKey(bundle.digest, "tensorrt-rtx", "1.6.1.120", (9, 0), form, rows=2)
    _, networks = collect_networks(bundle, key)
    gpu = Gpu('NVIDIA "RTX" 6000: Ada/Max?', (8, 9), "580.65.06 ", "GPU-1234")
    kept = [f"{kind}-{gpu.card_slug}.cache" for kind in ("runtime_caches", "measured")]
    assert_distinct_names([*(f"{network.name}.plan" for network in networks), *kept, CONSTANTS_FILE, MANIFEST_FILE])
    assert is_possible_name(key.folder_name)


def test_files_of_a_bundle_can_be_named() -> None:
    assert_distinct_names(sorted(path.name for path in SHIPPED_BUNDLE.iterdir()))


def test_the_repository_can_be_checked_out() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    paths = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    assert [path for path in paths if not is_possible_name(path.name)] == []
    assert len({str(path).casefold() for path in paths}) == len(paths) > 500
