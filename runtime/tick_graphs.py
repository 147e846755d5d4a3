"""Work as CUDA graphs: what is captured once, and launched in every tick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cuda.core import Stream
from cuda.core.graph import Graph

from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.lanes import Edge

Work = Callable[[Stream], None]
"""Enqueues work on a stream, which may be capturing."""


def capture_work(memory: DeviceMemory, work: Work) -> Graph:
    """Run work once, so that everything late is loaded, then record it as a graph, ready to be launched."""
    work(memory.stream)
    memory.stream.sync()
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
    """A tick as it was captured: a graph for each part. Owner of the graphs."""

    def __init__(self, memory: DeviceMemory, parts: Sequence[TickPart]) -> None:
        self._graphs = [capture_work(memory, part.work) for part in parts]
        self._parts = [replace(part, work=graph.launch) for part, graph in zip(parts, self._graphs, strict=True)]

    def launch(self) -> None:
        """Enqueue a tick."""
        for part in self._parts:
            part.enqueue()

    def close(self) -> None:
        """Free the graphs; what was launched still runs. Closing twice is harmless."""
        for graph in self._graphs:
            graph.close()
