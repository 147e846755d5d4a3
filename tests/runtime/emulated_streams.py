"""Streams, events and graphs of the emulated GPU: they are in no hurry, and promise no more order than CUDA does.

Work is done when somebody waits for it, on the host or on another stream, and only as much of it as that takes. Or
streams go on by themselves, each at its own ``Pace``: what is in order only by luck then happens out of order.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

Work = Callable[[], None]


class EmulationError(Exception):
    """What a GPU would answer with an illegal address, or worse."""


@dataclass(frozen=True)
class Pace:
    """How far streams get by themselves whenever the host enqueues something.

    Attributes:
        haste: per stream, in order of creation: 0, it does only what is waited for; 1, all that it may do at once; in
            between, with this probability, some of that. Streams that are not named do only what is waited for.
        seed: of what is left to chance.
    """

    haste: tuple[float, ...]
    seed: int = 0


class EmulatedQueues:
    """All streams of a device, and the books that tests look into.

    Attributes:
        handles: for streams to come.
        waits: how often the host waited for work that was not done.
        syncs: how often it asked, done or not.
        works: names of what was submitted outside of captures, in order.
    """

    def __init__(self) -> None:
        self.streams: dict[int, EmulatedStream] = {}
        self.handles = count(1)
        self.waits = 0
        self.syncs = 0
        self.works: list[str] = []
        self.keep_pace(Pace(()))

    def create_stream(self, options: object = None) -> EmulatedStream:
        """Return a stream."""
        return EmulatedStream(self)

    def create_event(self) -> EmulatedEvent:
        """Return an event that nothing was recorded in."""
        return EmulatedEvent(self)

    def create_graph_builder(self) -> EmulatedGraphBuilder:
        """Return a builder with a stream that only records."""
        return EmulatedGraphBuilder(self)

    def keep_pace(self, pace: Pace) -> None:
        """Let streams go on by themselves from here on."""
        self._pace = pace
        self._chance = random.Random(pace.seed)

    def go_on(self) -> None:
        """Let every stream get as far as its haste takes it, in any order."""
        streams = list(zip(self.streams.values(), self._pace.haste, strict=False))
        self._chance.shuffle(streams)
        for stream, haste in streams:
            if self._chance.random() < haste:
                stream.go_on(stream.waiting if haste == 1 else self._chance.randrange(stream.waiting + 1))

    def finish(self) -> None:
        """Do all that was enqueued anywhere."""
        for stream in list(self.streams.values()):
            stream.end.reach()


@dataclass(frozen=True)
class Mark:
    """A place in a stream's order: behind its first ``steps`` steps."""

    stream: EmulatedStream
    steps: int

    @property
    def is_reached(self) -> bool:
        """Whether all of them are done."""
        return self.stream.done >= self.steps

    def reach(self) -> None:
        """Do what is missing, and what it waits for on other streams, and nothing else."""
        while not self.is_reached:
            self.stream.next_step()


class EmulatedStream:
    """Steps in order. While it captures, work is recorded in ``recorded`` and not done.

    Attributes:
        done: steps that are done.
    """

    def __init__(self, queues: EmulatedQueues) -> None:
        self.queues = queues
        self.handle = next(queues.handles)
        queues.streams[self.handle] = self
        self.recorded: list[Work] | None = None
        self.done = 0
        self._steps: deque[Work | Mark] = deque()

    @property
    def waiting(self) -> int:
        """Steps that are not done."""
        return len(self._steps)

    @property
    def end(self) -> Mark:
        """The place behind all that was enqueued so far."""
        return Mark(self, self.done + len(self._steps))

    def submit(self, name: str, *works: Work) -> None:
        """Enqueue work, with whatever addresses it holds now; other streams may do theirs between its parts."""
        if self.recorded is not None:
            self.recorded += works
            return
        self.queues.works.append(name)
        self._steps += works
        self.queues.go_on()

    def wait(self, event: EmulatedEvent) -> None:
        """Go on only where the event was recorded last; at once, if it never was."""
        self._refuse_while_capturing()
        if event.mark is not None:
            self._steps.append(event.mark)

    def record(self, event: EmulatedEvent) -> None:
        """Move an event behind all work so far. Who waits for it already waits for where it was before."""
        self._refuse_while_capturing()
        event.mark = self.end

    def sync(self) -> None:
        """Let the host wait for all work."""
        self._refuse_while_capturing()
        self.queues.go_on()
        self.queues.syncs += 1
        self.queues.waits += not self.end.is_reached
        self.end.reach()

    def go_on(self, steps: int) -> None:
        """Do up to so many steps, and none that has to wait for another stream."""
        for _ in range(steps):
            if isinstance(self._steps[0], Mark) and not self._steps[0].is_reached:
                break
            self.next_step()

    def next_step(self) -> None:
        """Do one step, and first what it waits for."""
        step = self._steps[0]
        if isinstance(step, Mark):
            step.reach()
        self._steps.popleft()
        self.done += 1
        if not isinstance(step, Mark):
            step()

    def _refuse_while_capturing(self) -> None:
        if self.recorded is not None:
            raise EmulationError("a stream that captures neither waits nor is waited for")


class EmulatedEvent:
    """A place in a stream's order, which may be moved.

    Attributes:
        mark: the place, once the event was recorded.
    """

    def __init__(self, queues: EmulatedQueues) -> None:
        self.mark: Mark | None = None
        self._queues = queues

    def sync(self) -> None:
        """Let the host wait until its stream came here."""
        self._queues.go_on()
        self._queues.syncs += 1
        if self.mark is not None:
            self._queues.waits += not self.mark.is_reached
            self.mark.reach()


class EmulatedGraphBuilder:
    """Records what is enqueued on its stream."""

    def __init__(self, queues: EmulatedQueues) -> None:
        self.stream = EmulatedStream(queues)

    def begin_building(self) -> EmulatedGraphBuilder:
        """Record from here on."""
        self.stream.recorded = []
        return self

    def end_building(self) -> EmulatedGraphBuilder:
        """Record no more."""
        return self

    def complete(self) -> EmulatedGraph:
        """Return what was recorded."""
        if not self.stream.recorded:
            raise EmulationError("nothing was captured")
        return EmulatedGraph(self.stream.recorded)

    def close(self) -> None:
        """Let go of the stream."""
        del self.stream.queues.streams[self.stream.handle]


class EmulatedGraph:
    """Recorded work: every launch does the same to the same addresses."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._works = tuple(works)
        self._uploaded = False

    def upload(self, stream: EmulatedStream) -> None:
        """Prepare launches, in the stream's order."""
        stream.submit("upload", lambda: setattr(self, "_uploaded", True))

    def launch(self, stream: EmulatedStream) -> None:
        """Enqueue all of it."""
        if not self._works:
            raise EmulationError("the graph was closed")
        stream.submit("graph", self._begin, *self._works)

    def close(self) -> None:
        """Forget it; closing twice is harmless."""
        self._works = ()

    def _begin(self) -> None:
        if not self._uploaded:
            raise EmulationError("the graph is launched before it was uploaded")
