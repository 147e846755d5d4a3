"""Where a tick's time goes: every stage alone, and what is beside the tick."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from live2diff_trt.benchmarks.bench_frame import PROMPT
from live2diff_trt.benchmarks.count_work import Work
from live2diff_trt.benchmarks.device_work import capture_replay, load_window, stage_work, wait_for_device
from live2diff_trt.benchmarks.frame_sources import draw_pictures, move_pictures
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import Label
from live2diff_trt.benchmarks.timing import Case, CudaCoreClock, TorchClock, WallClock, interleave
from live2diff_trt.benchmarks.torch_pipeline import TorchPipeline
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.pipeline import Pipeline, Submitted

_SETTLING = 40


def time_stages(
    results: ResultsFile,
    point: Point,
    pipelines: Mapping[Label, Pipeline],
    work: Mapping[str, Work],
    *,
    samples: int,
) -> None:
    """Add ``stage/…``: every part of a tick on the device, as a graph of its own where there are graphs, in turns.

    Args:
        results: gets the entries.
        point: what is streamed.
        pipelines: label → a backend's stream. Of one that works on the host, only the UNet's tick is known.
        work: what each stage counts.
        samples: of each stage.
    """
    with ExitStack() as stack:
        cases = {
            (label, name): case
            for label, pipeline in pipelines.items()
            for name, case in _prepare_stages(pipeline, stack).items()
        }
        for (label, name), samples_ms in interleave(cases, samples=samples).items():
            notes = work[name].as_notes() if name in work else {}
            results.add_samples(f"stage/{name}", *label, point, samples_ms, **notes)
    for pipeline in pipelines.values():
        pipeline.reset()


def _prepare_stages(pipeline: Pipeline, stack: ExitStack) -> dict[str, Case]:
    if isinstance(pipeline, CudaPipeline):
        session = pipeline.parts.unet
        load_window(session, pipeline.spec)
        clock = partial(CudaCoreClock, session.memory.stream)
        return {
            name: Case(capture_replay(session, work, stack), clock()) for name, work in stage_work(pipeline).items()
        }
    if isinstance(pipeline, TorchPipeline):
        pipeline.tick_of_unet.fill_random_past(0, 20)
        return {name: _torch_case(pipeline, work) for name, work in _torch_stages(pipeline).items()}
    return {}


def _torch_stages(pipeline: TorchPipeline) -> dict[str, Callable[[], None]]:
    return {
        "enter": pipeline.enter,
        "denoise": pipeline.denoise,
        "decode": pipeline.decode,
        "tick": pipeline.compute,
    }


def _torch_case(pipeline: TorchPipeline, work: Callable[[], None]) -> Case:
    if pipeline.cuda_stream is None:
        return Case(work, WallClock())
    replay = pipeline.capture_work(work)

    def launch() -> None:
        with pipeline.on_stream():
            replay()

    return Case(launch, TorchClock(pipeline.cuda_stream))


def time_host(results: ResultsFile, point: Point, label: Label, pipeline: Pipeline, *, samples: int) -> None:
    """Add what the host does per tick, by where the frames lie.

    ``stage/host_tick_page_locked`` is of frames of ``empty_frame``, as the command ``run`` gives them;
    ``stage/host_tick`` of frames in ordinary memory, their copy into page-locked memory included.
    """
    pictures = draw_pictures(point.width, point.height)
    for name, frames in (
        ("host_tick_page_locked", move_pictures(pictures, pipeline.empty_frame)),
        ("host_tick", pictures),
    ):
        spent_ms = _time_ticks(pipeline, frames, _SETTLING + samples)
        results.add_samples(f"stage/{name}", *label, point, spent_ms[_SETTLING:])
    pipeline.reset()


def _time_ticks(pipeline: Pipeline, frames: list[Image], ticks: int) -> list[float]:
    """Return how long the host takes to submit each tick, in ms, while nothing else is on its way."""
    _fill(pipeline, frames)
    spent_ms: list[float] = []
    last: Submitted | None = None
    for index in range(8, 8 + ticks):
        if last is not None:
            last.pending.wait()
        began = time.perf_counter()
        last = pipeline.tick(index, frames[index % len(frames)])
        spent_ms.append((time.perf_counter() - began) * 1000)
    return spent_ms


def time_warm_up(results: ResultsFile, point: Point, label: Label, pipeline: CudaPipeline, *, samples: int) -> None:
    """Add ``stage/warm_up`` (8 gathered frames until all are delivered) and ``stage/gather`` (taking in all 8)."""
    pictures = draw_pictures(point.width, point.height)
    pipeline.set_text_embeddings(pipeline.encode_prompt(PROMPT))
    gathering: list[float] = []
    warming: list[float] = []
    for _ in range(samples):
        pipeline.reset()
        began = time.perf_counter()
        for index in range(8):
            pipeline.gather(index, pictures[index])
        wait_for_device(pipeline)
        gathered = time.perf_counter()
        pipeline.warm_up(8).wait()
        gathering.append((gathered - began) * 1000)
        warming.append((time.perf_counter() - gathered) * 1000)
    results.add_samples("stage/gather", *label, point, gathering)
    results.add_samples("stage/warm_up", *label, point, warming)
    pipeline.reset()


def _fill(pipeline: Pipeline, pictures: list[Image]) -> None:
    """Stream the first frames."""
    pipeline.reset()
    pipeline.set_text_embeddings(pipeline.encode_prompt(PROMPT))
    for index in range(8):
        pipeline.gather(index, pictures[index])
    pipeline.warm_up(8).wait()
