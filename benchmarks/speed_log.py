"""What was tried to make a tick faster: what was expected of each step, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from live2diff_trt.bundle.errors import Live2DiffError

Verdict = Literal["kept", "dropped", "open"]


class SpeedLogError(Live2DiffError):
    """The log can't be read, or a step in it does not say what it has to."""


@dataclass(frozen=True)
class Step:
    """One thing that was tried.

    Attributes:
        title: what was changed.
        prediction: what was expected of it, before it was measured; empty where nobody wrote it down.
        outcome: what was measured.
        verdict: whether it stayed; ``open``: it was measured, and nothing is decided.
        where: on which GPU, and where its figures are.
    """

    title: str
    prediction: str
    outcome: str
    verdict: Verdict
    where: str

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise SpeedLogError(
                f"the verdict on {self.title!r} is {self.verdict!r}", f"Write one of {', '.join(get_args(Verdict))}"
            )
        empty = [name for name in ("title", "outcome", "where") if not getattr(self, name).strip()]
        if empty:
            raise SpeedLogError(f"the step {self.title!r} lacks {', '.join(empty)}", "Say what was measured, and where")


def read_speed_log(path: Path) -> list[Step]:
    """Read the steps, in the order in which they were taken; none where there is no file.

    Raises:
        SpeedLogError: the file is damaged, or a step in it is.
    """
    if not path.is_file():
        return []
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpeedLogError(f"{path} can't be read: {error!r}", 'Write {"steps": […]}') from error
    return [_read_step(path, step) for step in steps]


def _read_step(path: Path, step: object) -> Step:
    wanted = {column.name for column in fields(Step)}
    if not isinstance(step, dict) or set(step) != wanted or not all(isinstance(text, str) for text in step.values()):
        raise SpeedLogError(f"a step in {path} is {step!r}", f"Give it the texts {', '.join(sorted(wanted))}")
    return Step(**step)
