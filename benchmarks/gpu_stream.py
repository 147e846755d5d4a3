"""A whole stream on a GPU: frames at saturation, latency, host time, warm-up, and each stage and kernel alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice

import numpy as np
from cuda.core import Stream

from live2diff_trt.benchmarks.gpu_unet import capture_replay, load_window
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import Case, CudaCoreClock, interleave, time_gpu
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.split import TemporalAttentionCut
from live2diff_trt.runtime.cuda_pipeline import CudaPipeline
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.pipeline import Submitted
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.split_unet import SplitUNet
from live2diff_trt.runtime.stream import Stream as VideoStream

BACKEND = "tensorrt-rtx"
_SETTLING_FRAMES = 40


def time_frames(results: ResultsFile, pipeline: CudaPipeline, form: str, *, samples: int) -> None:
    """Add ``frame`` (interval between finished frames at saturation) and ``frame_latency`` (one at a time).

    uint8 in host memory to uint8 in host memory, depth and both autoencoders included.
    """
    spec = pipeline.spec
    frames = _frames(spec, samples)
    stream = VideoStream(pipeline)
    finished_at = [(frame.index, time.perf_counter()) for frame in stream.run(iter(frames), ahead=1)]
    intervals = np.diff([moment for _, moment in finished_at])[_SETTLING_FRAMES : _SETTLING_FRAMES + samples] * 1000
    results.add_samples("frame", BACKEND, form, spec, intervals.tolist(), mean_ms=round(float(intervals.mean()), 4))
    latencies = [frame.latency_ms for image in frames for frame in stream(image)][_SETTLING_FRAMES:][:samples]
    results.add_samples("frame_latency", BACKEND, form, spec, latencies, ahead=0)
    stream.flush()


def time_host(results: ResultsFile, pipeline: CudaPipeline, form: str, *, samples: int) -> None:
    """Add ``stage/host_tick``: what the host does per tick, the picture's copy into pinned memory included."""
    frames = _frames(pipeline.spec, samples)
    pipeline.reset()
    for index, image in enumerate(frames[:8]):
        pipeline.gather(index, image)
    pipeline.warm_up(8).wait()
    spent: list[float] = []
    last: Submitted | None = None
    for index, image in enumerate(frames[8:], start=8):
        if last is not None:
            last.pending.wait()
        began = time.perf_counter()
        last = pipeline.tick(index, image)
        spent.append((time.perf_counter() - began) * 1000)
    results.add_samples("stage/host_tick", BACKEND, form, pipeline.spec, spent[_SETTLING_FRAMES:][:samples])
    pipeline.reset()


def time_warm_up(results: ResultsFile, pipeline: CudaPipeline, form: str, *, samples: int) -> None:
    """Add ``stage/warm_up`` (8 gathered frames until all are delivered) and ``stage/gather`` (taking in all 8)."""
    frames = _frames(pipeline.spec, 0)[:8]
    gathering: list[float] = []
    warming: list[float] = []
    for _ in range(samples):
        pipeline.reset()
        began = time.perf_counter()
        for index, image in enumerate(frames):
            pipeline.gather(index, image)
        pipeline.parts.lanes.sync()
        gathered = time.perf_counter()
        pipeline.warm_up(8).wait()
        gathering.append((gathered - began) * 1000)
        warming.append((time.perf_counter() - gathered) * 1000)
    results.add_samples("stage/gather", BACKEND, form, pipeline.spec, gathering)
    results.add_samples("stage/warm_up", BACKEND, form, pipeline.spec, warming)
    pipeline.reset()


def time_stages(results: ResultsFile, pipeline: CudaPipeline, form: str, *, samples: int) -> None:
    """Add every part of the tick on the device, each as a graph of its own, timed in turns."""
    parts, spec = pipeline.parts, pipeline.spec
    stages, rows = parts.stages, parts.unet.unet.tick_rows
    load_window(parts.unet, spec)
    work = {
        "see": stages.see,
        "encode": lambda stream: stages.encode(stream, stages.clean.row(0)),
        "estimate_depth": stages.estimate_depth,
        "embed_depth": lambda stream: stages.embed_depth(stream, rows.depth_features.row(0)),
        "enter": parts.tick.enter,
        "denoise": parts.tick.denoise,
        "decode": lambda stream: stages.decode(stream, stages.finished.row(0)),
        "tick": parts.tick.enqueue,
    }
    with ExitStack() as stack:
        cases = {
            name: Case(capture_replay(parts.unet, one, stack), CudaCoreClock(parts.memory.stream))
            for name, one in work.items()
        }
        for name, samples_ms in interleave(cases, samples=samples).items():
            results.add_samples(f"stage/{name}", BACKEND, form, spec, samples_ms)
    pipeline.reset()


def time_attention(results: ResultsFile, pipeline: CudaPipeline, *, samples: int) -> None:
    """Add the attention kernel at each size, and all attentions of a tick together, with their share of copying.

    A launch at one size goes through all caches of that size in turn, so that none is still in the GPU's cache.
    """
    unet, spec = pipeline.parts.unet.unet, pipeline.spec
    if not isinstance(unet, SplitUNet):
        return
    load_window(pipeline.parts.unet, spec)
    cuts: dict[str, list[TemporalAttentionCut]] = {}
    places = {cache.name: cache for cache in spec.kv_caches}
    for cut in unet.attentions:
        cache = places[cut.place]
        cuts.setdefault(f"{cache.height}x{cache.width}x{cache.channels}", []).append(cut)
    with ExitStack() as stack:
        for size, of_size in {**cuts, "all": list(unet.attentions)}.items():
            replay = capture_replay(pipeline.parts.unet, partial(_attend_all, unet, of_size), stack)
            samples_ms = time_gpu(replay, CudaCoreClock(pipeline.parts.memory.stream), samples=samples)
            moved = sum(_moved_bytes(spec, places[cut.place].positions * places[cut.place].channels) for cut in of_size)
            results.add_samples(
                f"kernel/streaming_attention-{size}",
                BACKEND,
                "split",
                spec,
                samples_ms,
                launches=len(of_size),
                bytes_read_and_written=moved,
                tb_per_s=round(moved / float(np.median(samples_ms)) / 1e9, 3),
            )
    pipeline.reset()


def _attend_all(unet: SplitUNet, cuts: Sequence[TemporalAttentionCut], stream: Stream) -> None:
    for cut in cuts:
        unet.compute(stream, cut)


def _moved_bytes(spec: StreamSpec, elements: int) -> int:
    """Bytes of one launch over all rows: visible keys and values, q, k and v read; out and the new slot written."""
    visible = spec.window - 1  # all but the slot that is being replaced
    return spec.steps * (2 * visible + 3 + 3) * elements * np.dtype(spec.dtype).itemsize


def _frames(spec: StreamSpec, samples: int) -> list[Image]:
    source = TestPatternSource(spec.width, spec.height)
    return [frame.image for frame in islice(source, 8 + 2 * _SETTLING_FRAMES + samples)]
