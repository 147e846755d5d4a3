"""What can go wrong while exporting."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class ExportError(Live2DiffError):
    """A module could not be turned into the graph its signature promises."""


class CheckpointError(Live2DiffError):
    """A model, or a file of it, is missing, can't be read, or is of a kind that this network can't use."""


class StyleError(Live2DiffError):
    """A style's YAML asks for something that is unknown or can't be had."""
