"""What all commands share: the two consoles, and how options are read."""

from __future__ import annotations

import logging
import re

from rich.console import Console
from rich.logging import RichHandler

from live2diff_trt.bundle.errors import SpecError

output = Console()
"""For results."""
messages = Console(stderr=True)
"""For progress, warnings and errors."""


def show_log(verbose: bool) -> None:
    """Send the project's log to the message console: warnings, or everything."""
    handler = RichHandler(console=messages, show_time=False, show_path=False)
    project = logging.getLogger("live2diff_trt")
    project.handlers[:] = [handler]
    project.setLevel(logging.DEBUG if verbose else logging.WARNING)
    project.propagate = False


def read_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT; raise SpecError if it is something else."""
    form = re.fullmatch(r"(\d+)x(\d+)", text)
    if form is None:
        raise SpecError(f"{text!r} is not a size", "Write WIDTHxHEIGHT in pixels, as in 512x512")
    return int(form[1]), int(form[2])
