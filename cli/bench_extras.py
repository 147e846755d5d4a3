"""What ``live2diff-trt bench`` says where a package is missing that a command needs."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class BenchmarksMissingError(Live2DiffError):
    """A command needs what its extra installs."""


def missing(error: ImportError, extras: str) -> BenchmarksMissingError:
    """Return the error that names the package and the extras that install it."""
    return BenchmarksMissingError(
        f"this needs a package that is not installed ({error})",
        f"Install it with `pip install live2diff-trt[{extras}]`",
    )
