"""What can go wrong while two clips are compared. Each error says what to do about it."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class EvaluationError(Live2DiffError):
    """Two clips can't be compared frame by frame, or what compares them is not installed."""
