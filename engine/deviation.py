"""How far two tensors are apart: the measures of conformance, of export's check and of plans."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def deviation(ours: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return max|ours − reference| / max(1, max|reference|); infinity where either holds a NaN or an infinity.

    Raises:
        ValueError: if the shapes differ.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"ours has shape {ours.shape}, the reference has {reference.shape}")
    wanted = reference.astype(np.float64)
    error = float(np.abs(ours.astype(np.float64) - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
    return error if np.isfinite(error) else float("inf")


def relative_error(ours: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return ‖ours − reference‖₂ / ‖reference‖₂; infinity where either holds a NaN or an infinity, or if only one is 0.

    Raises:
        ValueError: if the shapes differ.
    """
    if ours.shape != reference.shape:
        raise ValueError(f"ours has shape {ours.shape}, the reference has {reference.shape}")
    wanted = reference.astype(np.float64)
    difference, size = np.linalg.norm(ours.astype(np.float64) - wanted), np.linalg.norm(wanted)
    if difference == 0:
        return 0.0
    error = float(difference / size) if size > 0 else float("inf")
    return error if np.isfinite(error) else float("inf")
