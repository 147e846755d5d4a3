"""Who is next: every frame that came leaves once, in the order in which they came, with a picture old or new."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.pipeline import Pending


@dataclass(frozen=True)
class Arrival:
    """A frame on its way: which it is, when it is shown, when it came."""

    index: int
    time: Fraction
    came_at: float

    def leave(self, image: Any, *, repeated: bool) -> FinishedFrame:
        """Return it as it is delivered, now."""
        latency_ms = (time.perf_counter() - self.came_at) * 1000
        return FinishedFrame(image, self.time, self.index, latency_ms, repeated)


@dataclass(frozen=True)
class Showing:
    """What one picture is shown for.

    Attributes:
        own: the frame that it was made of; None: one that left before.
        repeats: frames that came behind it and show it again.
    """

    own: Arrival | None
    repeats: Sequence[Arrival]

    def leave(self, image: Any) -> list[FinishedFrame]:
        """Return all of them, in order."""
        own = [] if self.own is None else [self.own.leave(image, repeated=False)]
        return own + [arrival.leave(image, repeated=True) for arrival in self.repeats]


@dataclass(frozen=True, eq=False)
class Leaving:
    """Frames whose pictures are being made, or were made already.

    Attributes:
        showings: what the last pictures are shown for, in order.
        pending: at least as many pictures.
    """

    showings: Sequence[Showing]
    pending: Pending

    def deliver(self) -> list[FinishedFrame]:
        """Return the frames once their pictures are complete."""
        images = self.pending.wait()[-len(self.showings) :]
        pairs = zip(self.showings, images, strict=True)
        return [finished for showing, image in pairs for finished in showing.leave(image)]


class DeliveryQueue:
    """The frames of one stream that have not been delivered, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Arrival, list[Arrival]]] = deque()  # frames, and who repeats each
        self._leaving: deque[Leaving] = deque()
        self._last: deque[Pending] = deque(maxlen=1)  # empty until something left

    @property
    def can_repeat(self) -> bool:
        """Whether there is a picture, or will be one, that a frame which comes now can show again."""
        return bool(self._waiting or self._last)

    def __len__(self) -> int:
        """Count the groups of frames that are leaving."""
        return len(self._leaving)

    def wait(self, arrival: Arrival) -> None:
        """Let a frame wait for the picture that is made of it."""
        self._waiting.append((arrival, []))

    def repeat(self, arrival: Arrival) -> None:
        """Let a frame show the picture before it once more, as soon as that leaves; only where it ``can_repeat``."""
        if self._waiting:
            self._waiting[-1][1].append(arrival)
        else:
            self._leaving.append(Leaving([Showing(None, [arrival])], self._last[0]))

    def leave(self, pending: Pending, pictures: int = 1) -> None:
        """Let the frames leave that waited longest: so many pictures are being made, one for each."""
        showings = [Showing(*self._waiting.popleft()) for _ in range(pictures)]
        self._leaving.append(Leaving(showings, pending))
        self._last.append(pending)

    def pop(self) -> Leaving:
        """Return those that are next."""
        return self._leaving.popleft()
