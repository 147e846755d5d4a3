"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

LATENCIES_SECONDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5)


class Metrics:
    """Counters of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.frames_in = self._count("frames_in", "Frames that visitors sent")
        self.frames_out = self._count("frames_out", "Pictures that were given to the network")
        self.frames_dropped = self._count("frames_dropped", "Frames and pictures for which a newer one was there")
        self.frames_damaged = self._count("frames_damaged", "Frames that could not be decoded")
        self.sessions_opened = self._count("sessions_opened", "Sessions that were opened")
        self.sessions_refused = self._count("sessions_refused", "Sessions for which there was no place")
        self.sessions_failed = self._count("sessions_failed", "Sessions that an error ended")
        self.controls = self._count("controls", "Controls that took effect")
        self.controls_refused = self._count("controls_refused", "Controls that were not valid")
        self.latency = Histogram(
            "live2diff_latency_seconds",
            "From the moment a frame was there to the moment its picture was given to the network",
            registry=self._registry,
            buckets=LATENCIES_SECONDS,
        )
        self.watch("process_memory_bytes", "Memory of the server", lambda: psutil.Process().memory_info().rss)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Show a value as it is when it is asked for."""
        Gauge(f"live2diff_{name}", description, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def _count(self, name: str, description: str) -> Counter:
        return Counter(f"live2diff_{name}", description, registry=self._registry)
