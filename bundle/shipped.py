"""The tiny bundle that the package carries, so that a first stream needs neither an export nor PyTorch."""

from __future__ import annotations

from pathlib import Path

SHIPPED_BUNDLE = Path(__file__).parent / "tiny"
"""Where it lies in an installed package that carries it."""


def locate_bundle(folder: Path) -> Path:
    """Return where a bundle lies: at the path, or in the package where the path is ``tiny`` and nothing is there."""
    if folder == Path(SHIPPED_BUNDLE.name) and SHIPPED_BUNDLE.is_dir() and not folder.exists():
        return SHIPPED_BUNDLE
    return folder
