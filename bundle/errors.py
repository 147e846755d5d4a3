"""Typed errors. Each says what is wrong and ends with the remedy; the command line shows them without a traceback."""

from __future__ import annotations

from typing import Any


class Live2DiffError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        problem: what is wrong, naming the thing: a file, a tensor, an option. A sentence without its full stop.
        remedy: what to do about it. A sentence without its full stop.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}. {remedy}.")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle message and attributes, whatever a subclass takes: errors come back from other processes."""
        return Exception.__new__, (type(self), *self.args), vars(self)


class SpecError(Live2DiffError):
    """A stream was described in a way that no network can serve: size, step list, dtype."""


class BundleError(Live2DiffError):
    """A bundle is missing, truncated, tampered with, or of another format version."""


class RestyleError(Live2DiffError):
    """Weights can't take the place of a bundle's: they are damaged, or another network's."""


class NotWritableError(Live2DiffError):
    """A file can't be written, or does not give way to the one that is to replace it."""

    def __init__(self, path: object, error: OSError) -> None:
        super().__init__(
            f"{path} can't be written ({error})", "Close what has it open, free space there, or choose another place"
        )


class OutputExistsError(Live2DiffError):
    """Something is already where a file or bundle is to be written."""

    def __init__(self, path: object) -> None:
        super().__init__(f"{path} exists already", "Choose another place, or pass --overwrite to replace it")
