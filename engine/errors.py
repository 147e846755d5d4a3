"""What can go wrong between a bundle and an executable form of it."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class BackendError(Live2DiffError):
    """A backend is not installed, or can't do what was asked of it on this machine."""
