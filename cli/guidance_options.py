"""Guidance as ``run`` is told of it."""

from __future__ import annotations

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.guidance import Guidance, GuidanceKind


def read_guidance(
    kind: GuidanceKind, scale: float | None, delta: float | None, negative_prompt: str | None
) -> Guidance:
    """Return the guidance that options describe; None is one that was not given.

    Raises:
        ControlError: if an option is given that the kind has no use for, or is out of its range.
    """
    if kind == "none" and scale is not None:
        raise ControlError("without guidance a scale has no effect", "Choose a kind, as in --guidance self")
    return Guidance(
        kind,
        Guidance.scale if scale is None else scale,
        negative_prompt or Guidance.negative_prompt,
        Guidance.delta if delta is None else delta,
    )
