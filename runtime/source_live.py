"""A source that comes back: opened again, later and later, when it breaks off, stalls or ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image, NewFrame, SourceFrame, empty_frame
from live2diff_trt.runtime.source_decode import DecodedSource
from live2diff_trt.runtime.source_health import SourceHealth

logger = logging.getLogger(__name__)

OpenPart = Callable[[NewFrame, SourceHealth], DecodedSource]


@dataclass(frozen=True)
class BackOff:
    """How long to wait before each attempt to open a source again; all begins anew once a frame came.

    Attributes:
        attempts: in a row, before the source is given up.
        first_seconds: before the first one; each further wait is twice as long.
        longest_seconds: but no longer than this.
    """

    attempts: int = 10
    first_seconds: float = 0.5
    longest_seconds: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 0 or not 0 <= self.first_seconds <= self.longest_seconds:
            raise SourceError(
                f"{self} is no way to come back", "Use 0 attempts or more, and waits that rise from 0 or more"
            )

    def waits(self) -> Iterator[float]:
        """Yield the wait before each attempt, in seconds."""
        for attempt in range(self.attempts):
            yield min(self.first_seconds * 2**attempt, self.longest_seconds)


class LiveSource(ClosedAtEnd):
    """One live source, however often it has to be opened. Its times go on: a gap is as long as it was on the clock.

    It may be closed while another thread reads it.

    Args:
        name: what messages call it.
        open_part: opens the source again.
        first: the source, as it was opened first.
        ends: whether an end is one; else it is one more reason to open it again.
        back_off: when, and how often.
        now: a clock, in seconds.

    Attributes:
        new_frame: where frames go; may be set while reading.
        health: what was survived.

    Raises:
        SourceError: while reading, it broke off and did not come back.
    """

    frame_count: int | None = None
    audio_path: Path | None = None
    is_live = True

    def __init__(
        self,
        name: str,
        open_part: OpenPart,
        first: DecodedSource,
        *,
        ends: bool = False,
        back_off: BackOff | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.health = first.health
        self.new_frame: NewFrame = empty_frame
        self._name, self._open_part, self._ends, self._now = name, open_part, ends, now
        self._back_off = back_off or BackOff()
        self._closed = threading.Event()
        self._part = first
        first.new_frame = self._empty_frame
        self.frame_rate, self.width, self.height = first.frame_rate, first.width, first.height
        self._began = Fraction(0)
        self._last_time, self._last_at = Fraction(0), self._now()
        self._trouble: SourceError | None = None
        self._frames = self._read()

    def __iter__(self) -> Iterator[SourceFrame]:
        return self._frames

    def close(self) -> None:
        """End the reading, and any wait. Closing twice is harmless."""
        self._closed.set()
        self._part.close()

    def _empty_frame(self, height: int, width: int) -> Image:
        return self.new_frame(height, width)

    def _read(self) -> Iterator[SourceFrame]:
        while not self._closed.is_set():
            yield from self._read_part()
            if self._closed.is_set() or (self._ends and self._trouble is None):
                return
            if not self._come_back():
                break
        if self._trouble is not None and not self._closed.is_set():
            raise self._trouble

    def _read_part(self) -> Iterator[SourceFrame]:
        """Yield frames until there are no more of this part, and remember why."""
        self._trouble = None
        try:
            for frame in self._part:
                self._last_time, self._last_at = self._began + frame.time, self._now()
                yield SourceFrame(frame.image, self._last_time)
                del frame
        except SourceError as error:
            self._trouble = error

    def _come_back(self) -> bool:
        """Open the source again; return whether it came back, or is not wanted any more."""
        self._part.close()
        reason = f"{self._name} ended" if self._trouble is None else self._trouble.problem
        for wait in self._back_off.waits():
            logger.warning("%s; it is opened again in %g s", reason, wait)
            if self._closed.wait(wait) or self._try_again():
                return True
            reason = f"{self._name} is not back"
        logger.warning("%s did not come back in %d attempts", self._name, self._back_off.attempts)
        return False

    def _try_again(self) -> bool:
        try:
            self._part = self._open_part(self._empty_frame, self.health)
        except SourceError as error:
            logger.info("%s", error)
            return False
        self._go_on()
        return True

    def _go_on(self) -> None:
        self.health.reconnections += 1
        gap = Fraction(self._now() - self._last_at).limit_denominator(1000)
        self._began = self._last_time + max(gap, 1 / self.frame_rate)
        if self._closed.is_set():
            self._part.close()  # who closed it saw the part before
