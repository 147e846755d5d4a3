"""``quality/…``: the pictures of one way of running a bundle against those of another, on a real clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from live2diff_trt.benchmarks.bench_frame import PROMPT
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.evaluation.picture_quality import find_psnr_db, find_ssim
from live2diff_trt.runtime.backend import BackendOptions
from live2diff_trt.runtime.frame import FinishedFrame, SourceFrame
from live2diff_trt.runtime.source import open_source
from live2diff_trt.runtime.stream import Stream

_BACKENDS: dict[str, type[BackendOptions]] = {"tensorrt": TensorRTOptions, "onnxruntime": OnnxRuntimeOptions}
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def read_options(text: str) -> BackendOptions:
    """Read ``FIELD=VALUE,…`` into options of TensorRT, or of another backend that is named as ``backend=…``.

    Raises:
        MeasurementError: a field is none of the backend's options.
    """
    values = dict(_read_field(field) for field in text.split(",") if field)
    backend = values.pop("backend", "tensorrt")
    if backend not in _BACKENDS:
        raise MeasurementError(f"there is no backend {backend}", f"Name one of {','.join(_BACKENDS)}")
    known = [field.name for field in dataclasses.fields(_BACKENDS[backend])]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise MeasurementError(f"{backend} has no option {', '.join(unknown)}", f"It has {', '.join(known)}")
    return _BACKENDS[backend](**values)


def read_named_options(text: str) -> tuple[str, BackendOptions]:
    """Read ``NAME:FIELD=VALUE,…``; raises what ``read_options`` does."""
    name, colon, fields = text.partition(":")
    if not colon or not name:
        raise MeasurementError(f"{text!r} names no option", "Write NAME:FIELD=VALUE, as in one-row:rows=1")
    return name, read_options(fields)


def measure_quality(
    results: ResultsFile,
    point: Point,
    bundle: Path,
    plans: Path | None,
    clip: Path,
    baseline: BackendOptions,
    options: Mapping[str, BackendOptions],
    *,
    prompt: str = PROMPT,
    frames: int = 100,
) -> None:
    """Add ``quality/<name>`` for each of several ways of running a bundle: how far its pictures are from a baseline's.

    Args:
        results: gets the entries.
        point: what the bundle is.
        bundle: its folder.
        plans: root of the plan store; None: the user's cache.
        clip: a video.
        baseline: what the others are compared with.
        options: name → another way.
        prompt: of all of them.
        frames: of the clip.
    """

    def stream_clip(options: BackendOptions) -> list[FinishedFrame]:
        placed = dataclasses.replace(options, plans=plans) if isinstance(options, TensorRTOptions) else options
        with Stream.open(bundle, prompt=prompt, options=placed) as stream, _first_frames(clip, frames) as source:
            return list(stream.run(source, ahead=1))

    wanted = stream_clip(baseline)
    for name, option in options.items():
        found = stream_clip(option)
        pairs = [(one.image, other.image) for one, other in zip(found, wanted, strict=True)]
        decibels = [find_psnr_db(*pair) for pair in pairs if not np.array_equal(*pair)]
        similarities = [find_ssim(*pair) for pair in pairs]
        backend = next(known for known, kind in _BACKENDS.items() if isinstance(option, kind))
        results.add_figure(
            f"quality/{name}",
            backend,
            None,
            point,
            clip=clip.name,
            frames=len(pairs),
            equal_frames=len(pairs) - len(decibels),
            psnr_db=round(float(np.mean(decibels)), 3) if decibels else None,
            worst_psnr_db=round(min(decibels), 3) if decibels else None,
            ssim=round(float(np.mean(similarities)), 5),
            worst_ssim=round(min(similarities), 5),
            option=_describe(option),
            baseline=_describe(baseline),
        )


@contextmanager
def _first_frames(clip: Path, count: int) -> Iterator[Iterator[SourceFrame]]:
    with open_source(str(clip)) as source:
        yield islice(iter(source), count)


def _read_field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise MeasurementError(f"{text!r} gives no option a value", "Write FIELD=VALUE, as in form=split")
    return name, _WORDS.get(value, int(value) if value.isdigit() else value)


def _describe(options: BackendOptions) -> dict[str, Any]:
    """Return the options that are not the usual ones."""
    usual = type(options)()
    names = [field.name for field in dataclasses.fields(options)]
    return {name: getattr(options, name) for name in names if getattr(options, name) != getattr(usual, name)}
