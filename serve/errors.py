"""What can go wrong between a visitor and a session. Each error says what to do about it."""

from __future__ import annotations

from live2diff_trt.bundle.errors import Live2DiffError


class ServeError(Live2DiffError):
    """The server can't be started as it was asked to."""


class OfferError(Live2DiffError):
    """A WebRTC offer is none that can be answered, or not now."""


class SessionError(Live2DiffError):
    """A session is not there, full, or not in a state for what was asked of it."""


class LineFullError(Live2DiffError):
    """Every seat is taken, and so is every place in the line."""


class StreamBrokenError(Live2DiffError):
    """A session's stream ended by an error that nobody foresaw: a fault of ours."""
