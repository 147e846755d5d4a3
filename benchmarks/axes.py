"""Points beside the base point: what one axis changes, TensorRT and PyTorch each at its best, beside the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from live2diff_trt.benchmarks.counted_work import find_limit_ms
from live2diff_trt.benchmarks.markdown import show_times, write_columns
from live2diff_trt.benchmarks.results_file import Results
from live2diff_trt.benchmarks.timed import Stream, Timed, find_best, find_streams, find_timed, show_ms


@dataclass(frozen=True)
class Axis:
    """Points that differ from the base point in one thing.

    Attributes:
        name: as plots' files have it. title: as the page has it.
        streams: the base point among them, in order.
    """

    name: str
    title: str
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Duel:
    """One figure of one stream: ours at its best, PyTorch's at its best, and the limit in milliseconds."""

    stream: Stream
    ours: Timed | None
    theirs: Timed | None
    limit_ms: float | None

    @property
    def is_lost(self) -> bool:
        """Whether PyTorch is faster."""
        return self.ours is not None and self.theirs is not None and self.theirs.p50_ms < self.ours.p50_ms


def find_axes(results: Results) -> list[Axis]:
    """Return the axes along which something was measured. The first stream of a file is the base point."""
    streams = find_streams(results)
    if not streams:
        return []
    base = streams[0]
    steps = sorted(stream for stream in streams if stream._replace(steps=base.steps) == base)
    sizes = sorted(
        (stream for stream in streams if stream._replace(width=base.width, height=base.height) == base),
        key=lambda stream: (stream.width * stream.height, stream.width),
    )
    networks = [
        stream
        for stream in streams
        if stream._replace(autoencoder=base.autoencoder, depth=base.depth) == base
        and (stream.autoencoder, stream.depth) != (None, None)
    ]
    axes = [
        Axis("steps", "Over T, the denoising steps", tuple(steps)),
        Axis("sizes", "Over the size of the picture", tuple(sizes)),
        Axis("networks", "With another autoencoder, or another depth network", tuple(networks)),
    ]
    return [axis for axis in axes if len(axis.streams) > 1]


def find_duel(results: Results, stream: Stream, name: str) -> Duel:
    """Return TensorRT (where there is no GPU: ONNX Runtime) and PyTorch at their best in ``unet_tick`` or ``frame``."""
    timed = find_timed(results, stream, name)
    limit_ms = find_limit_ms(results, timed[0].entry) if timed else None
    return Duel(stream, find_best(timed, torch=False), find_best(timed, torch=True), limit_ms)


def tabulate_axis(results: Results, axis: Axis) -> str:
    """Return both figures at every point of an axis."""
    ticks = [find_duel(results, stream, "unet_tick") for stream in axis.streams]
    frames = [find_duel(results, stream, "frame") for stream in axis.streams]
    return write_columns(
        {
            "point": [_describe(axis, stream) for stream in axis.streams],
            "UNet: ours ms": [show_time(duel.ours) for duel in ticks],
            "UNet: PyTorch ms": [show_time(duel.theirs) for duel in ticks],
            "UNet: × of the limit": [_times_of_limit(duel) for duel in ticks],
            "UNet: faster": [_name_faster(duel) for duel in ticks],
            "frames: our FPS": [show_rate(duel.ours) for duel in frames],
            "frames: PyTorch's FPS": [show_rate(duel.theirs) for duel in frames],
            "frames: × of the limit": [_times_of_limit(duel) for duel in frames],
            "frames: faster": [_name_faster(duel) for duel in frames],
        }
    )


def name_losses(results: Results) -> str:
    """Say in which figures PyTorch is faster, and where; or that it is nowhere. Empty if nothing can be compared."""
    named = {"unet_tick": "the UNet's tick", "frame": "whole frames"}
    duels = {
        what: [find_duel(results, stream, name) for stream in find_streams(results)] for name, what in named.items()
    }
    compared = [duel for found in duels.values() for duel in found if duel.ours and duel.theirs]
    if not compared:
        return ""
    lost = {what: [str(duel.stream) for duel in found if duel.is_lost] for what, found in duels.items()}
    places = [f"{what} at {'; '.join(streams)}" for what, streams in lost.items() if streams]
    if not places:
        return f"**PyTorch is nowhere faster** in the {len(compared)} figures in which both were measured."
    return f"**Where PyTorch is faster**: {', and in '.join(places)}."


def _describe(axis: Axis, stream: Stream) -> str:
    if axis.name == "steps":
        return f"T = {stream.steps}"
    return f"{stream.width}×{stream.height}" if axis.name == "sizes" else stream.networks


def _times_of_limit(duel: Duel) -> str:
    return show_times(duel.ours.p50_ms / duel.limit_ms if duel.ours and duel.limit_ms else None)


def _name_faster(duel: Duel) -> str:
    if duel.ours is None or duel.theirs is None:
        return ""
    ratio = duel.theirs.p50_ms / duel.ours.p50_ms
    if duel.is_lost:
        return f"**PyTorch**, {100 * (1 / ratio - 1):.0f} %"
    return f"{'ONNX Runtime' if duel.ours.entry.backend == 'onnxruntime' else 'TensorRT'}, {100 * (ratio - 1):.0f} %"


def show_time(timed: Timed | None) -> str:
    """Return a time in milliseconds; nothing if it was not measured."""
    return "" if timed is None else show_ms(timed.p50_ms)


def show_rate(timed: Timed | None) -> str:
    """Return how many a second; nothing if it was not measured."""
    return "" if timed is None else f"{1000 / timed.p50_ms:.1f}"


def best_rates(duels: Sequence[Duel]) -> dict[str, list[float | None]]:
    """Return frames a second of each row of a plot, and at the limit; None where one was not measured."""

    def rate(ms: float | None) -> float | None:
        return None if ms is None else 1000 / ms

    ours = next((duel.ours.entry.backend for duel in duels if duel.ours), "")
    rows = {
        f"{ours}, its best form": [rate(duel.ours.p50_ms if duel.ours else None) for duel in duels],
        "PyTorch, its best row": [rate(duel.theirs.p50_ms if duel.theirs else None) for duel in duels],
        "limit": [rate(duel.limit_ms) for duel in duels],
    }
    return {name: rates for name, rates in rows.items() if any(rates)}
