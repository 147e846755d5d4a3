"""What can go wrong while the small network is trained or judged."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class TrainingError(Live2DiffError):
    """Footage, weights or options that nothing can be trained from."""
