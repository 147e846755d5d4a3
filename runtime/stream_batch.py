"""Which frame is in which row: integers only, the same for every backend.

T denoising steps are T rows, each another frame. A frame enters row 0, moves one row on in every tick, and leaves from
row T − 1.
"""

from __future__ import annotations


class StreamBatch:
    """The rows of one stream.

    Attributes:
        frames: per row, the index of the frame it holds, or None.
    """

    def __init__(self, steps: int) -> None:
        self.frames: list[int | None] = [None] * steps

    @property
    def in_flight(self) -> int:
        """Frames that entered and have not left."""
        return sum(frame is not None for frame in self.frames)

    @property
    def active(self) -> list[bool]:
        """Per row, whether it holds a real frame."""
        return [frame is not None for frame in self.frames]

    def enter(self, frame: int) -> None:
        """Put a frame into row 0, in place."""
        self.frames[0] = frame

    def advance(self) -> int | None:
        """Move every frame one row on, in place, and return the one that left."""
        finished = self.frames[-1]
        self.frames[1:] = self.frames[:-1]
        self.frames[0] = None
        return finished

    def reset(self) -> None:
        """Forget every frame."""
        self.frames[:] = [None] * len(self.frames)
