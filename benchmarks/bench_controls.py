"""``control/…``: a run of every control; how long each call took, which ticks waited, and how long.

One frame is on its way at a time, so that what a tick waits for is its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from live2diff_trt.benchmarks.control_script import (
    FIRST_GUIDANCE,
    KINDS,
    PROMPT,
    Part,
    ScriptPictures,
    list_parts,
    most_steps,
)
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import Label
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.runtime.backend import BackendOptions
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.stream import Stream

_LONGER = 1.5
"""Times the usual interval: a tick that took longer waited,"""
_LEAST_WAIT_MS = 1.0
"""if it took so much longer."""
_THERE_AND_BACK = 16
"""Frames, after those of the warm-up, that are streamed with and without a style."""


@dataclass
class TimedPart:
    """What was seen of a part.

    Attributes:
        call_ms: in the control itself.
        intervals_ms: of each tick, from the end of the one before it until the frames that it delivers are there.
        delivered: how many frames each of them delivered.
        repeats: whether each of them delivered nothing but repeated frames.
        steps, kind: T and the kind of guidance at its end.
        found: what else is told of it, by name.
    """

    name: str
    call_ms: float
    intervals_ms: list[float] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    repeats: list[bool] = field(default_factory=list)
    steps: int = 0
    kind: str = ""
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def usual_ms(self) -> float:
        """The median interval of the part's second half, in which what was set has long been in effect.

        Ticks that computed nothing are left out, unless there are no others.
        """
        half = len(self.intervals_ms) // 2
        settled = list(zip(self.intervals_ms[half:], self.repeats[half:], strict=True))
        computed = [interval for interval, repeats in settled if not repeats]
        return float(np.median(computed or [interval for interval, _ in settled]))

    @property
    def waits_ms(self) -> dict[int, float]:
        """The part's ticks that waited, counted from 0 → for how long."""
        over = {tick: interval - self.usual_ms for tick, interval in enumerate(self.intervals_ms)}
        most = max((_LONGER - 1) * self.usual_ms, _LEAST_WAIT_MS)
        return {tick: wait for tick, wait in over.items() if wait > most}


def time_controls(
    results: ResultsFile,
    point: Point,
    label: Label,
    bundle: Path,
    options: BackendOptions,
    *,
    ticks: int,
    style: Path | None = None,
) -> None:
    """Add ``control/<part>`` for every part of the script, run on a stream of its own.

    With a style, the same frames are then streamed without it, in it and without it again: ``style_apart`` of the part
    that takes it back is by how much it changed them, in the mean, of 255 levels.

    Args:
        results: gets the entries.
        point: what is streamed.
        label: of the backend.
        bundle: its folder.
        options: of the backend.
        ticks: of each part; where a stream warms up anew, so many more as it gathers.
        style: to change to; None leaves that out.

    Raises:
        MeasurementError: if a frame was lost, came twice or in another order, or is black, or if what was streamed
            after a style was taken back is not what was streamed before it, bit by bit.
        ControlError: if there is a style and the backend can't change its weights.
    """
    spec = Bundle.open(bundle, ()).spec.with_step_list(point.step_list)
    with Stream.open(
        bundle,
        prompt=PROMPT,
        step_list=spec.step_list,
        max_steps=most_steps(spec),
        guidance=FIRST_GUIDANCE,
        guidance_kinds=KINDS,
        options=options,
    ) as stream:
        pictures = ScriptPictures(spec.width, spec.height)
        parts = {part.name: part for part in _run_script(stream, list_parts(spec, style), pictures, ticks)}
        if style is not None:
            shown = list(pictures.show("moves", spec.sink + _THERE_AND_BACK))
            parts["style_back"].found["style_apart"] = _go_there_and_back(stream, style, shown)
    for part in parts.values():
        _add(results, point, label, part)


def _run_script(stream: Stream, script: Sequence[Part], pictures: ScriptPictures, ticks: int) -> list[TimedPart]:
    delivered = _Delivered()
    parts: list[TimedPart] = []
    for part in script:
        shown = list(pictures.show(part.scene, ticks + part.frames))
        parts.append(_time_part(stream, part, shown, delivered))
    delivered.check(stream.flush())
    delivered.check_all(sum(len(part.intervals_ms) for part in parts))
    return parts


def _time_part(stream: Stream, part: Part, shown: Sequence[Image], delivered: _Delivered) -> TimedPart:
    """Set a control and stream on; the call is part of the first tick's interval, as a viewer would see it."""
    ended = time.perf_counter()
    part.control(stream)
    timed = TimedPart(part.name, (time.perf_counter() - ended) * 1000)
    for image in shown:
        finished = stream(image)
        began, ended = ended, time.perf_counter()
        timed.intervals_ms.append((ended - began) * 1000)
        timed.delivered.append(len(finished))
        timed.repeats.append(bool(finished) and all(frame.repeated for frame in finished))
        delivered.check(finished)
    timed.steps, timed.kind = stream.spec.steps, stream.guidance.kind
    return timed


def _go_there_and_back(stream: Stream, style: Path, shown: Sequence[Image]) -> float:
    """Return how far apart the same frames are without a style and in it; see ``time_controls``."""
    clips = []
    for chosen in (None, style, None):
        stream.set_style(chosen)
        clips.append(np.stack([np.asarray(frame.image).copy() for frame in stream.run(shown)]))
    before, styled, after = clips
    if not np.array_equal(before, after):
        raise MeasurementError("frames differ once a style was there and taken back", "Mend the change of styles first")
    return round(float(np.abs(styled.astype(np.float32) - before).mean()), 2)


class _Delivered:
    """Checks frames as they come, and counts them."""

    def __init__(self) -> None:
        self._next = 0

    def check(self, finished: Sequence[FinishedFrame]) -> None:
        for frame in finished:
            if frame.index != self._next or not np.asarray(frame.image).any():
                raise MeasurementError(
                    f"frame {frame.index} came where {self._next} was due, or is black", "Mend the stream first"
                )
            self._next += 1

    def check_all(self, given: int) -> None:
        if self._next != given:
            raise MeasurementError(f"of {given} frames {self._next} came", "Mend the stream first")


def _add(results: ResultsFile, point: Point, label: Label, part: TimedPart) -> None:
    results.add_samples(
        f"control/{part.name}",
        *label,
        point,
        part.intervals_ms,
        t=part.steps,
        guidance=part.kind,
        call_ms=round(part.call_ms, 4),
        usual_ms=round(part.usual_ms, 4),
        waits_ms={str(tick): round(wait, 4) for tick, wait in part.waits_ms.items()},
        delivered=part.delivered,
        **part.found,
    )
