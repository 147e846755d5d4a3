"""What goes into a graph module and comes out of it."""

from __future__ import annotations

from torch import Tensor

Tensors = tuple[Tensor, ...]
