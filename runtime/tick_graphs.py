"""Work as CUDA graphs: what is captured once, and launched in every tick or in every pass of warm-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cuda.core import Stream
from cuda.core.graph import Graph

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.lanes import Edge
from live2diff_trt.runtime.stream_rows import StreamRows

Work = Callable[[Stream], None]
"""Enqueues work on a stream, which may be capturing."""


def capture_work(memory: DeviceMemory, work: Work) -> Graph:
    """Run work once, so that everything late is loaded, then record it as a graph, ready to be launched."""
    work(memory.stream)
    memory.stream.sync()
    return record_work(memory, work)


def record_work(memory: DeviceMemory, work: Work) -> Graph:
    """Record work, all of whose kernels and plans ran before, as a graph; nothing is run, and nothing is waited for."""
    builder = memory.device.create_graph_builder()
    builder.begin_building()
    work(builder.stream)
    graph = builder.end_building().complete()
    builder.close()
    graph.upload(memory.stream)
    return graph


class CapturedWork:
    """Work as it was captured. Owner of the graph.

    Args:
        memory: where it is uploaded.
        work: that ran before.
    """

    def __init__(self, memory: DeviceMemory, work: Work) -> None:
        self._graph = record_work(memory, work)
        self._closed = False

    def launch(self, stream: Stream) -> None:
        """Enqueue the work on a stream; raise PlanError after ``close``."""
        if self._closed:
            raise PlanError(
                "a stream's graphs are gone, because its plans' weights could not be restored", "Open it again"
            )
        self._graph.launch(stream)

    def close(self) -> None:
        """Free the graph; what was launched still runs. Closing twice is harmless."""
        self._closed = True
        self._graph.close()


@dataclass(frozen=True)
class TickPart:
    """A part of a tick's work, where it runs, and what it is ordered by.

    Attributes:
        work: enqueues it on a stream; once captured, launches its graph.
        lane: the stream it runs on.
        waits: what must have happened on other lanes.
        signals: what has happened then.
    """

    work: Work
    lane: Stream
    waits: tuple[Edge, ...] = ()
    signals: tuple[Edge, ...] = ()

    def enqueue(self) -> None:
        """Enqueue the work on its lane, in order with the others."""
        for edge in self.waits:
            edge.wait()
        self.work(self.lane)
        for edge in self.signals:
            edge.signal()


class TickGraphs:
    """A tick as it was captured: a graph for each part. Owner of the graphs.

    Args:
        memory: where they are uploaded.
        parts: of the tick. Their work ran before.
    """

    def __init__(self, memory: DeviceMemory, parts: Sequence[TickPart]) -> None:
        self._works = [CapturedWork(memory, part.work) for part in parts]
        self._parts = [replace(part, work=captured.launch) for part, captured in zip(parts, self._works, strict=True)]

    def launch(self) -> None:
        """Enqueue a tick; raise PlanError after ``close``."""
        for part in self._parts:
            part.enqueue()

    def close(self) -> None:
        """Free the graphs; what was launched still runs. Closing twice is harmless."""
        for captured in self._works:
            captured.close()


class GraphsOfRows:
    """The graphs of the rows that are in effect, and those of others that may follow them. Owner of all.

    Args:
        rows: of the UNet, that are in effect.
        captured: the graphs of these rows, and of others that stay ready as long.
        warm_up: a pass of warm-up, which any rows have in common.
    """

    def __init__(self, rows: StreamRows, captured: Mapping[StreamRows, TickGraphs], warm_up: CapturedWork) -> None:
        self._rows = rows
        self._graphs = dict(captured)
        self._stay = frozenset(captured)
        self._warm_up = warm_up

    def prepare(self, rows: StreamRows, capture: Callable[[], TickGraphs]) -> None:
        """Have graphs for other rows, in place of those that were prepared before; capture them unless they are there.

        ``capture`` is called before anything changes: where it fails, all is as it was.
        """
        if rows in self._graphs:
            return
        graphs = capture()
        for other in self._graphs.keys() - self._stay - {self._rows}:
            self._graphs.pop(other).close()
        self._graphs[rows] = graphs

    def take(self, rows: StreamRows) -> None:
        """Launch the graphs of rows that were prepared from here on. The last ones' stay: they may come back."""
        self._rows = rows

    def launch(self) -> None:
        """Enqueue a tick."""
        self._graphs[self._rows].launch()

    def run_pass(self, stream: Stream) -> None:
        """Enqueue a pass of warm-up, for the row that the UNet was aimed at."""
        self._warm_up.launch(stream)

    def close(self) -> None:
        """Free the graphs; what was launched still runs. Closing twice is harmless."""
        for graphs in self._graphs.values():
            graphs.close()
        self._warm_up.close()
