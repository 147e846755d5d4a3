"""Objects that share everything with another one but what is named."""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

Copied = TypeVar("Copied")


def copied(one: Copied, **changed: Any) -> Copied:
    """Return a shallow copy of an object with other attributes; none that it does not have."""
    other = copy(one)
    unknown = changed.keys() - vars(other).keys()
    if unknown:
        raise AttributeError(f"{type(one).__name__} has no {', '.join(sorted(unknown))}")
    vars(other).update(changed)
    return other
