"""Live2Diff as a streaming engine: bundle → plans → frames.

The folders follow the data: ``export`` writes a bundle, ``engine`` makes it executable, ``runtime`` streams frames
through it. ``Stream`` is the way in for programs; ``live2diff-trt`` is the way in for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from live2diff_trt.runtime.stream import Stream

__version__ = "0.1.0"
__all__ = ["Stream", "__version__"]


def __getattr__(name: str) -> Any:
    """Import ``Stream`` when it is first asked for, so that ``live2diff_trt.bundle`` alone stays light."""
    if name == "Stream":
        from live2diff_trt.runtime.stream import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
