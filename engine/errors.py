"""What can go wrong between a bundle and an executable form of it."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class BackendError(Live2DiffError):
    """A backend is not installed, or can't do what was asked of it on this machine."""


class FlavourError(BackendError):
    """No flavour of TensorRT fits, or the one that was asked for does not."""


class GpuError(Live2DiffError):
    """The GPU that was asked for is not there, or its driver does not answer."""


class PlanBuildError(Live2DiffError):
    """TensorRT can't make a plan of a graph, or not the plan that was asked for."""


class PlanStoreError(Live2DiffError):
    """Plans are missing, truncated, tampered with, or were built for something else."""


class PlanError(Live2DiffError):
    """TensorRT can't load a plan, or not run it."""
