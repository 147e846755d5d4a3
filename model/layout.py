"""The two ways to see a feature map: as a picture, and as tokens. Channels last, both are the same memory."""

from __future__ import annotations

from torch import Tensor


def to_tokens(picture: Tensor) -> Tensor:
    """[rows, channels, height, width] → [rows, positions, channels], a view."""
    return picture.flatten(2).transpose(1, 2)


def to_picture(tokens: Tensor, height: int) -> Tensor:
    """[rows, positions, channels] → [rows, channels, height, width], a view."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))
