"""Work as CUDA graphs: what is captured once, and launched in every tick."""

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
        self._graphs = [record_work(memory, part.work) for part in parts]
        self._closed = False
        self._parts = [replace(part, work=graph.launch) for part, graph in zip(parts, self._graphs, strict=True)]

    def launch(self) -> None:
        """Enqueue a tick; raise PlanError after ``close``."""
        if self._closed:
            raise PlanError(
                "a tick's graphs are gone, because its plans' weights could not be restored", "Open it again"
            )
        for part in self._parts:
            part.enqueue()

    def close(self) -> None:
        """Free the graphs; what was launched still runs. Closing twice is harmless."""
        self._closed = True
        for graph in self._graphs:
            graph.close()


class GraphsOfRows:
    """The graphs of the rows that are in effect, and those of others that may follow them. Owner of all.

    Args:
        rows: of the UNet, that are in effect.
        captured: the graphs of these rows, and of others that stay ready as long.
    """

    def __init__(self, rows: StreamRows, captured: Mapping[StreamRows, TickGraphs]) -> None:
        self._rows = rows
        self._graphs = dict(captured)
        self._stay = frozenset(captured)

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

    def close(self) -> None:
        """Free the graphs; what was launched still runs. Closing twice is harmless."""
        for graphs in self._graphs.values():
            graphs.close()
