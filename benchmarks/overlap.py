"""Whether the runtime overlaps the parts of a tick. Until every runtime has the option; then this file goes.

``rows.py`` then passes ``overlap=…`` itself, and ``bench_frame.py`` asks the pipeline for ``full_ahead``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.pipeline import Pipeline


def can_overlap() -> bool:
    """Whether ``TensorRTOptions`` has the option."""
    return "overlap" in {field.name for field in dataclasses.fields(TensorRTOptions)}


def overlap_option(overlap: bool) -> dict[str, Any]:
    """Return the option as TensorRTOptions takes it, if it does."""
    return {"overlap": overlap} if can_overlap() else {}


def full_ahead(pipeline: Pipeline) -> int:
    """Return how many frames to take before the oldest result is waited for, to be busy all the time."""
    return getattr(pipeline, "full_ahead", 1)
