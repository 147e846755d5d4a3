"""Several builds at a time, and what is told of them in the thread of whoever waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

OnPhase = Callable[[str, int, int], None]
"""Told a phase of the build, its finished steps, and all its steps."""


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        plan: one that is built now; several may be. index: how many plans are finished. plans: how many there will be.
        phase: what TensorRT does. done, steps: of that phase.
    """

    plan: str
    index: int
    plans: int
    phase: str
    done: int
    steps: int


OnProgress = Callable[[BuildProgress], None]
_Event = tuple[str, str, int, int]


class _StoppedError(Exception):
    """Raised in the threads that build, once nobody waits for them any more."""


def build_at_once(
    names: Sequence[str], build: Callable[[int, OnPhase], None], on_progress: OnProgress, workers: int
) -> None:
    """Run ``build(index, on_phase)`` for every plan, some at a time.

    Args:
        names: of the plans.
        build: builds one plan; called in threads of their own.
        on_progress: called in the caller's thread. What it raises, or a build, stops all the others first.
        workers: how many plans at a time.
    """
    events: SimpleQueue[_Event | Future[None]] = SimpleQueue()
    stopped = threading.Event()

    def run(index: int) -> None:
        def on_phase(phase: str, done: int, steps: int) -> None:
            if stopped.is_set():
                raise _StoppedError
            events.put((names[index], phase, done, steps))

        build(index, on_phase)

    with ThreadPoolExecutor(workers, thread_name_prefix="plans") as pool:
        futures = [pool.submit(run, index) for index in range(len(names))]
        for future in futures:
            future.add_done_callback(events.put)
        try:
            _follow(events, len(names), on_progress)
        finally:
            stopped.set()
            for future in futures:
                future.cancel()


def _follow(events: SimpleQueue[_Event | Future[None]], plans: int, on_progress: OnProgress) -> None:
    """Tell of every event until all plans are finished; raise what a build raised."""
    finished = 0
    while finished < plans:
        event = events.get()
        if isinstance(event, Future):
            event.result()
            finished += 1
        else:
            plan, phase, done, steps = event
            on_progress(BuildProgress(plan, finished, plans, phase, done, steps))
