"""What can go wrong while exporting."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class ExportError(Live2DiffError):
    """A module could not be turned into the graph its signature promises."""
