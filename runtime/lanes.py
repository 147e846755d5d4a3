"""The lanes of a tick: streams that run at the same time, and what one of them does before another goes on.

- enter: the picture that came in → a pending latent, depth features and parameters.
- denoise: takes what is pending into row 0, runs the UNet, moves every frame one step on. It is the session's stream.
- decode: the finished latent → the picture that leaves.

Each lane is ordered by itself. Between them there are four edges, one for each thing that one lane makes and another
takes, and for each place that is free again; nothing waits for the frame after it.
"""

from __future__ import annotations

from typing import Literal

from cuda.core import Device, Event, Stream, StreamOptions

from live2diff_trt.runtime.device import DeviceMemory

LaneName = Literal["enter", "denoise", "decode"]

PRIORITIES: dict[LaneName, int] = {"enter": 0, "denoise": -1, "decode": -1}
"""Of the lanes' streams; lower goes first. The denoise lane decides how many frames a second there are, and decoding is
short and somebody waits for it. Entering has a whole tick's time: it takes what the others leave of the GPU."""

_LANES: dict[str, LaneName] = {
    "vae_encoder": "enter",
    "depth": "enter",
    "depth_embed": "enter",
    "vae_decoder": "decode",
}


def lane_of(plan: str, *, overlap: bool) -> LaneName:
    """Return the lane on which a plan runs. Without overlap there is one lane, the denoise lane."""
    return _LANES.get(plan, "denoise") if overlap else "denoise"


class Edge:
    """What comes before on one stream, and after on another. Between a stream and itself there is nothing to do."""

    def __init__(self, device: Device, source: Stream, target: Stream) -> None:
        self._source = source
        self._target = target
        self._event: Event | None = device.create_event() if source is not target else None

    def signal(self) -> None:
        """Mark the end of what the source was given so far."""
        if self._event is not None:
            self._source.record(self._event)

    def wait(self) -> None:
        """Let what the target is given next wait for the last mark; for nothing, if there is none yet."""
        if self._event is not None:
            self._target.wait(self._event)


class Lanes:
    """The three lanes of a session; without overlap they are one stream.

    Args:
        memory: whose stream is the denoise lane.
        overlap: whether the other two have streams of their own.

    Attributes:
        enter, denoise, decode: their streams.
        entered: what is pending is complete; the denoise lane may take it.
        taken: it was taken; the enter lane may overwrite it.
        left: the finished latent is complete; the decode lane may read it.
        decoded: it was read; the denoise lane may overwrite it.
    """

    def __init__(self, memory: DeviceMemory, *, overlap: bool) -> None:
        device = memory.device
        self.overlap = overlap
        self.denoise = memory.stream
        self.enter = self._open(memory, "enter")
        self.decode = self._open(memory, "decode")
        self.entered = Edge(device, self.enter, self.denoise)
        self.taken = Edge(device, self.denoise, self.enter)
        self.left = Edge(device, self.denoise, self.decode)
        self.decoded = Edge(device, self.decode, self.denoise)

    @property
    def count(self) -> int:
        """How many ticks are worked on at the same time."""
        return len({id(stream) for stream in (self.enter, self.denoise, self.decode)})

    def join(self) -> None:
        """Let the denoise lane wait for all that the others were given."""
        for edge in (self.entered, self.decoded):
            edge.signal()
            edge.wait()

    def fork(self) -> None:
        """Let the others wait for all that the denoise lane was given."""
        for edge in (self.taken, self.left):
            edge.signal()
            edge.wait()

    def sync(self) -> None:
        """Wait until every lane is idle."""
        self.join()
        self.denoise.sync()

    def _open(self, memory: DeviceMemory, lane: LaneName) -> Stream:
        if not self.overlap:
            return memory.stream
        return memory.device.create_stream(options=StreamOptions(priority=PRIORITIES[lane]))
