"""What went wrong with a source and was survived."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class SourceHealth:
    """Counts, from the first frame on; they only rise.

    Attributes:
        skipped_packets: that could not be decoded.
        damaged_frames: that were decoded with parts missing, and shown.
        size_changes: how often a frame was of another size than the one before.
        stalls: how often nothing came for so long that it was given up.
        reconnections: how often it was opened again.
    """

    skipped_packets: int = 0
    damaged_frames: int = 0
    size_changes: int = 0
    stalls: int = 0
    reconnections: int = 0

    def troubles(self) -> dict[str, int]:
        """Return those that are not 0, by a name that people read."""
        return {name.replace("_", " "): count for name, count in asdict(self).items() if count}
