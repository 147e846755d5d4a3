"""What is closed on leaving a ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

_Own = TypeVar("_Own", bound="ClosedAtEnd")


class ClosedAtEnd(ABC):
    """Opened when constructed, closed by ``close``, which the end of a ``with`` block calls too."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Closing twice is harmless."""

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
