"""The bundle of the package: found by its name, unless a folder has that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from live2diff_trt.bundle import shipped
from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.shipped import locate_bundle


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_the_packages_bundle_goes_by_its_name(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "package" / "tiny"
    carried.parent.mkdir()
    carried.symlink_to(tiny_bundle)
    monkeypatch.setattr(shipped, "SHIPPED_BUNDLE", carried)
    assert Bundle.open("tiny").folder == carried
    assert locate_bundle(Path("other")) == Path("other")
    Path("tiny").mkdir()
    assert locate_bundle(Path("tiny")) == Path("tiny")


def test_a_package_without_one_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "SHIPPED_BUNDLE", tmp_path / "tiny")
    with pytest.raises(BundleError, match="there is no bundle at tiny"):
        Bundle.open("tiny")
