"""What a GPU is to reach, and what it reached at the base point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from live2diff_trt.benchmarks.markdown import write_table
from live2diff_trt.benchmarks.results_file import Results
from live2diff_trt.benchmarks.timed import Stream, Timed, find_timed

SPLIT, OVERLAP, WHOLE = "split", "split+overlap", "whole"


@dataclass(frozen=True)
class Target:
    """A figure and its bounds.

    Attributes:
        what: it is.
        measured: what was found, in ``unit``.
        must, aim: bounds; None where the figure is reported alone.
        more_is_better: whether the bounds are the least there may be, or the most.
    """

    what: str
    measured: float
    unit: str
    must: float | None = None
    aim: float | None = None
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        """Whether the bounds are kept."""
        if self.must is None:
            return "reported"
        if not self._keeps(self.must):
            return "**missed**"
        return "met" if self.aim is None or self._keeps(self.aim) else "met, short of the aim"

    def _keeps(self, bound: float) -> bool:
        return self.measured >= bound if self.more_is_better else self.measured <= bound

    def show(self, amount: float | None) -> str:
        """Return an amount with its unit."""
        return "" if amount is None else f"{amount:.3g} {self.unit}".strip()

    def show_bound(self, bound: float | None) -> str:
        """Return a bound with its direction."""
        return "" if bound is None else f"{'≥' if self.more_is_better else '≤'} {self.show(bound)}"


def tabulate_targets(results: Results, stream: Stream) -> str:
    """Return the targets of which the figures were measured."""
    rows = [
        (
            target.what,
            target.show_bound(target.must),
            target.show_bound(target.aim),
            target.show(target.measured),
            target.verdict,
        )
        for target in find_targets(results, stream)
    ]
    return write_table(("what", "must", "aim", "measured", ""), rows)


def find_targets(results: Results, stream: Stream) -> Iterator[Target]:
    """Yield the targets of which the figures were measured."""
    unet = _find(results, stream, "unet_tick", SPLIT)
    if unet:
        yield Target("UNet tick, split", unet.p50_ms, "ms", 11.5, 9)
    frames = [frame for form in (SPLIT, OVERLAP, WHOLE) if (frame := _find(results, stream, "frame", form))]
    if frames:
        best = min(frames, key=lambda frame: frame.p50_ms)
        what = f"whole frames a second ({best.entry.form})"
        yield Target(what, 1000 / best.p50_ms, "FPS", 60, 85, more_is_better=True)
    yield from _find_latency_targets(results, stream, unet)
    for steady in _find_all(results, stream, "stage/steady_frame"):
        what = f"p99 over p50 of {steady.entry.samples:,} frames in a row ({steady.entry.form})"
        yield Target(what, steady.p99_ms / steady.p50_ms, "×", 1.15, 1.05)
    for name, given in (("host_tick_page_locked", "page-locked frames"), ("host_tick", "frames in ordinary memory")):
        for host in _find_all(results, stream, f"stage/{name}"):
            yield Target(f"the host's time in a tick, {given} ({host.entry.form})", host.p50_ms, "ms", 0.2, 0.1)
    whole = _find(results, stream, "unet_tick", WHOLE)
    if unet and whole:
        yield Target("UNet tick, split in times of whole", unet.p50_ms / whole.p50_ms, "×")


def _find_latency_targets(results: Results, stream: Stream, unet: Timed | None) -> Iterator[Target]:
    enter, decode = (_find(results, stream, f"stage/{name}", SPLIT) for name in ("enter", "decode"))
    late = _find(results, stream, "frame_latency_beyond", SPLIT)
    if late and unet and enter and decode:
        alone_ms = enter.p50_ms + unet.p50_ms + decode.p50_ms
        what = "latency beyond a frame's T − 1 ticks, in times of the stages and a UNet tick (split)"
        yield Target(what, late.p50_ms / alone_ms, "×", 1.1)
    late, frame = (_find(results, stream, name, OVERLAP) for name in ("frame_latency_beyond", "frame"))
    if late and frame:
        what = "latency beyond a frame's T − 1 ticks, in times of a frame's interval (split+overlap)"
        yield Target(what, late.p50_ms / frame.p50_ms, "×", 3, 2)


def _find(results: Results, stream: Stream, name: str, form: str) -> Timed | None:
    return next((one for one in _find_all(results, stream, name) if one.entry.form == form), None)


def _find_all(results: Results, stream: Stream, name: str) -> list[Timed]:
    """Return TensorRT's entries of a name."""
    timed = find_timed(results, stream, name)
    return [one for one in timed if one.entry.name == name and one.entry.backend.startswith("tensorrt")]
