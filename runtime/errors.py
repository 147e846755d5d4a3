"""What can go wrong while streaming. Each error says what to do about it."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class SourceError(Live2DiffError):
    """A source can't be opened, or holds no frame that can be decoded."""


class SinkError(Live2DiffError):
    """A sink can't be opened or written: the folder is missing, the disk is full, the container is unknown."""


class FrameError(Live2DiffError):
    """A frame handed to the stream is not uint8 RGB [height, width, 3]."""


class ControlError(Live2DiffError):
    """A control can't be set to that, or not now; nothing was changed."""


class StreamClosedError(Live2DiffError):
    """A stream was used after it was closed."""


class DeviceMemoryError(Live2DiffError):
    """A session would not fit into what is free of a GPU's memory."""
