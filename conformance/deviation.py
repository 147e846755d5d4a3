"""How far two tensors are apart: one measure for conformance, for export's check and for plans."""

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
