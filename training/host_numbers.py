"""Numbers that the host draws, on their way to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def move(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return nested numbers as a tensor on a device. The host does not wait for what the device has still to do."""
    return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)
