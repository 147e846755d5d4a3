"""What lies beside weights: their licence, and what they were made from."""

from __future__ import annotations

from pathlib import Path

from live2diff_trt.training.footage import CLIPS, HELD_OUT, PICTURES, Origin
from live2diff_trt.training.styles import STYLES

LICENCE_FILE, SOURCES_FILE = "LICENSE", "sources.md"
_LICENCE = """These weights are part of live2diff-trt and under its licence, the Apache License, Version 2.0:
https://www.apache.org/licenses/LICENSE-2.0

They were trained from scratch; no other network's weights went into them. What they were trained from is listed in
sources.md.
"""


def write_provenance(folder: Path) -> None:
    """Write the licence and the sources into a folder of weights."""
    (folder / LICENCE_FILE).write_text(_LICENCE, encoding="utf-8", newline="\n")
    (folder / SOURCES_FILE).write_text(describe_sources(), encoding="utf-8", newline="\n")


def describe_sources() -> str:
    """Return Markdown: every file of footage, and every style."""
    return "\n".join(
        [
            "# What the tiny network was trained from",
            "",
            "Trained on:",
            "",
            *map(_describe, (*CLIPS, *PICTURES)),
            "- scenes that `training/scenes.py` generates",
            "",
            "Held out, never trained on:",
            "",
            _describe(HELD_OUT),
            "",
            "Targets are made by the filters of `training/filters.py`:",
            "",
            *(f"- {style.name}: {', '.join(style.phrases)}" for style in STYLES),
            "",
        ]
    )


def _describe(origin: Origin) -> str:
    return f"- {origin.file} of {origin.distribution}: {origin.about}"
