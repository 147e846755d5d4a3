"""How much a tick has to compute and to read, counted, and how long that takes at the rates a GPU was measured at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from live2diff_trt.benchmarks.results_file import Results


class Stream(NamedTuple):
    """What is streamed: T, pixels and floating-point type."""

    steps: int
    height: int
    width: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.width}×{self.height}, T = {self.steps}, {self.dtype}"


class Work(NamedTuple):
    """What one tick of the UNet needs: 10¹² floating-point operations, and bytes of kv-caches read once."""

    tflop: float
    cache_bytes: int


UNET_WORK = {
    # The preset sd15.
    # tflop: products and convolutions of all rows, a multiplication and an addition being two, counted by
    # torch.utils.flop_counter in the network before anything is hoisted out of the tick. Without the depth path and the
    # projections of the text, which a tick finds computed, they are 2.204.
    # cache_bytes: keys and values · T · window · Σ positions · channels over the 40 caches · 2 bytes.
    Stream(2, 512, 512, "float16"): Work(tflop=2.227, cache_bytes=2 * 2 * 16 * 23_756_800 * 2),
}


@dataclass(frozen=True)
class Rates:
    """What a GPU did at most in a run.

    Attributes:
        copy_tb_per_s: 10¹² bytes a second, read and written ones added.
        matmul_tflop_per_s: 10¹² operations a second, float16.
    """

    copy_tb_per_s: float
    matmul_tflop_per_s: float

    def shortest_ms(self, work: Work) -> float:
        """Return the milliseconds of the work at these rates: first computing, then reading, nothing overlapped."""
        return self.compute_ms(work) + self.read_ms(work)

    def compute_ms(self, work: Work) -> float:
        """Return the milliseconds of the operations."""
        return work.tflop / self.matmul_tflop_per_s * 1000

    def read_ms(self, work: Work) -> float:
        """Return the milliseconds of reading the caches."""
        return work.cache_bytes / self.copy_tb_per_s / 1e9


def find_rates(results: Results) -> Rates | None:
    """Return the rates of ``kernel/copy`` and ``kernel/matmul``, or None where one was not measured."""
    notes = {entry.name: entry.notes for entry in results.entries}
    if "kernel/copy" not in notes or "kernel/matmul" not in notes:
        return None
    return Rates(notes["kernel/copy"]["tb_per_s"], notes["kernel/matmul"]["tflop_per_s"])


def find_unet_limit_ms(results: Results, stream: Stream) -> float | None:
    """Return how long a tick of the UNet takes at the run's rates; None if its work or the rates are not known."""
    rates, work = find_rates(results), UNET_WORK.get(stream)
    return None if rates is None or work is None else rates.shortest_ms(work)
