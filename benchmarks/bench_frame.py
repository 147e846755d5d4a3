"""Whole frames, from uint8 in host memory to uint8 in host memory: how many, how late, how steadily.

Every backend streams through ``runtime.stream.Stream``. Each has a stream that never ends, of which a block of frames
is taken at a time, in turns with the others, so that a drift of the clocks meets all alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from live2diff_trt.benchmarks.frame_sources import PictureSource, draw_pictures
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import Label
from live2diff_trt.engine.deviation import relative_error
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.stream import Stream

PROMPT = "a watercolour painting"
SLOWER = 1.25
"""How many times the interval at saturation a slow source waits between two frames."""
MOST_ERROR = 0.2
"""What makes other pictures is not timed."""
_BLOCK = 50
_SETTLING = 10
_CHECKED_FRAMES = 12
"""Warm-up, and a few ticks: an error is fed back through the caches from then on."""


class Sample(NamedTuple):
    """One finished frame, in milliseconds.

    Attributes:
        interval: since the one before it.
        latency: since it came.
        beyond: the same, since the last of the frames came that it had to wait for.
    """

    interval: float
    latency: float
    beyond: float


def compute_pictures(pipeline: Pipeline) -> list[Image]:
    """Return the pictures of the first frames of a stream, begun anew."""
    spec = pipeline.spec
    stream = _begin(pipeline)
    pictures = draw_pictures(spec.width, spec.height, _CHECKED_FRAMES)
    return [frame.image for frame in stream.run(iter(pictures))]


def find_error(found: Sequence[Image], wanted: Sequence[Image]) -> float:
    """Return the largest relative error of a picture; the mean of all is what counts as grey."""
    grey = np.mean([picture.mean() for picture in wanted])
    return max(relative_error(one - grey, other - grey) for one, other in zip(found, wanted, strict=True))


def time_frames(
    results: ResultsFile,
    point: Point,
    pipelines: Mapping[Label, Pipeline],
    errors: Mapping[Label, float],
    notes: Mapping[str, Any],
    *,
    samples: int,
) -> None:
    """Add ``frame`` of every backend.

    Args:
        results: gets the entries.
        point: what is streamed.
        pipelines: label → the stream of a backend.
        errors: of the pictures of each, against float32.
        notes: what a frame counts.
        samples: of each figure.
    """
    saturated = {label: _StreamOfBlocks(pipeline, 0.0, pipeline.full_ahead) for label, pipeline in pipelines.items()}
    for label, taken in _take_in_turns(saturated, samples).items():
        spent = [one.interval for one in taken]
        mean_ms = round(float(np.mean(spent)), 4)
        results.add_samples("frame", *label, point, spent, errors.get(label), mean_ms=mean_ms, **notes)


def time_latency(results: ResultsFile, point: Point, pipelines: Mapping[Label, Pipeline], *, samples: int) -> None:
    """Add ``frame_latency`` and ``frame_latency_beyond`` of each kind's best, its source slower than its ``frame``.

    Args:
        results: holds ``frame`` of every backend that is timed, and gets the entries.
        point: what is streamed.
        pipelines: label → the stream of a backend. One whose ``frame`` was not timed is left out.
        samples: of each figure.
    """
    intervals_ms = {
        Label(entry.backend, entry.form): entry.p50_ms for entry in results.entries if entry.name == "frame"
    }
    paced_ms = {
        label: SLOWER * interval_ms
        for label in pipelines
        if not _is_outdone(label, pipelines) and (interval_ms := intervals_ms.get(label)) is not None
    }
    slow = {label: _StreamOfBlocks(pipelines[label], interval_ms, 0) for label, interval_ms in paced_ms.items()}
    for label, taken in _take_in_turns(slow, samples).items():
        paced: dict[str, Any] = {"source_interval_ms": round(paced_ms[label], 4)}
        results.add_samples("frame_latency", *label, point, [one.latency for one in taken], **paced)
        results.add_samples("frame_latency_beyond", *label, point, [one.beyond for one in taken], **paced)


def time_steadiness(results: ResultsFile, point: Point, label: Label, pipeline: Pipeline, *, ticks: int) -> None:
    """Add ``stage/steady_frame``: the intervals of many frames in a row at saturation."""
    stream = _StreamOfBlocks(pipeline, 0.0, pipeline.full_ahead)
    taken = stream.take(ticks)
    stream.end()
    results.add_samples("stage/steady_frame", *label, point, [one.interval for one in taken])


def _begin(pipeline: Pipeline) -> Stream:
    """Return a stream on a pipeline that something else may have worked with before."""
    pipeline.reset()
    stream = Stream(pipeline)
    stream.set_prompt(PROMPT)
    return stream


def _is_outdone(label: Label, others: Mapping[Label, Pipeline]) -> bool:
    """Whether a row stands beside the same backend at its best, so that its latency tells nothing."""
    return label.backend in ("torch-eager", "torch-graph") and Label("torch-compile") in others


def _take_in_turns(streams: Mapping[Label, _StreamOfBlocks], samples: int) -> dict[Label, list[Sample]]:
    gathered: dict[Label, list[Sample]] = {label: [] for label in streams}
    for begin in range(0, samples, _BLOCK):
        for label, stream in streams.items():
            gathered[label] += stream.take(min(_BLOCK, samples - begin))
    for stream in streams.values():
        stream.end()
    return gathered


class _StreamOfBlocks:
    """An endless stream, of which finished frames are taken a block at a time."""

    def __init__(self, pipeline: Pipeline, interval_ms: float, ahead: int) -> None:
        spec = pipeline.spec
        self._steps = spec.steps
        self._stream = _begin(pipeline)
        self._source = PictureSource(draw_pictures(spec.width, spec.height), interval_ms)
        self._frames = self._stream.run(iter(self._source), ahead=ahead)
        self._untaken = spec.sink
        self._last = 0.0

    def take(self, count: int) -> list[Sample]:
        """Return the next frames, after some that do not count: those of warm-up, and those after a pause."""
        settling, self._untaken = self._untaken + _SETTLING, 0
        return list(islice(self._measure(), settling, settling + count))

    def end(self) -> None:
        """Stop, and leave the pipeline as new."""
        del self._frames
        self._stream.flush()

    def _measure(self) -> Iterator[Sample]:
        for frame in self._frames:
            now = time.perf_counter()
            interval_ms, self._last = (now - self._last) * 1000, now
            yield Sample(interval_ms, frame.latency_ms, self._beyond_ms(frame, now))

    def _beyond_ms(self, frame: FinishedFrame, now: float) -> float:
        """Return how long ago the frame came in whose tick this one left with."""
        came = self._source.given_at(frame.index + self._steps - 1)
        return float("nan") if came is None else (now - came) * 1000
