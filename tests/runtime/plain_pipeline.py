"""A pipeline without a network, which shows what it was told: each picture is its frame, and every call is checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.restyle import StyledWeights
from live2diff_trt.runtime.frame import Image, check_image, empty_frame
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.host_pipeline import ReadyPictures
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.pipeline import Pending, Submitted
from live2diff_trt.runtime.stream_batch import StreamBatch
from live2diff_trt.runtime.stream_rows import StreamRoom

SINK = 8
ROOM = StreamRoom.of(4, ("self", "full"))
Rows = tuple[tuple[int, ...], GuidanceKind]


def plain_spec(steps: int) -> StreamSpec:
    return StreamSpec(
        width=64,
        height=64,
        step_list=tuple(range(10, 10 + steps)),
        dtype="float32",
        heads=1,
        kv_caches=(),
        time_projections=(),
        prompt_kvs=(),
        prompt_tokens=2,
        text_channels=3,
        depth_channels=4,
        depth_size=0,
    )


@dataclass
class PlainPipeline:
    """Pictures are frames as they came. Calls in an order that the protocol does not allow fail.

    Attributes:
        encoded: prompts, as often as they were encoded.
        told: text embeddings, as often as they were projected.
        ticks: number of the frame that entered with each tick, or None.
        warm_ups: how many frames each warm-up had.
        seeds: that were set.
        prepared: step lists and kinds of guidance, as often as they were prepared.
        changes: those that came into effect, each with the pictures that it was warmed up from.
        guidance: in effect.
        styles: that came into effect.
    """

    steps: int = 2
    encoded: list[str] = field(default_factory=list)
    told: list[Array] = field(default_factory=list)
    ticks: list[int | None] = field(default_factory=list)
    warm_ups: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    prepared: list[Rows] = field(default_factory=list)
    changes: list[tuple[Rows, list[Image]]] = field(default_factory=list)
    full_ahead: int = 0
    room: StreamRoom = ROOM
    guidance: Guidance = NO_GUIDANCE
    styles: list[StyledWeights] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spec = plain_spec(self.steps)
        self._batch = StreamBatch(self.steps)
        self._gathered: list[Image] = []
        self._pictures: dict[int, Image] = {}
        self._kept: deque[Image] = deque(maxlen=SINK)
        self._warm = False
        self._newest = SINK - 1

    @property
    def in_flight(self) -> int:
        return self._batch.in_flight

    def empty_frame(self, height: int, width: int) -> Image:
        return empty_frame(height, width)

    def encode_prompt(self, prompt: str) -> Array:
        self.encoded.append(prompt)
        return np.random.default_rng(list(prompt.encode())).standard_normal((1, 2, 3)).astype(np.float32)

    def set_text_embeddings(self, embeddings: Array) -> None:
        self.told.append(embeddings)

    def set_seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def prepare_rows(self, step_list: tuple[int, ...], kind: GuidanceKind) -> None:
        self.room.check(len(step_list), kind)
        self.prepared.append((step_list, kind))

    def change_rows(self, step_list: tuple[int, ...], guidance: Guidance) -> None:
        assert self.in_flight == 0
        rows, in_effect = (step_list, guidance.kind), (self.spec.step_list, self.guidance.kind)
        assert self.styles or rows == self.prepared[-1] != in_effect
        assert len(self._kept) == (SINK if self._warm else 0)
        self.changes.append((rows, list(self._kept)))
        self.spec = self.spec.with_step_list(step_list)
        self.guidance = guidance
        self._batch = StreamBatch(self.spec.steps)

    def prepare_style(self, weights: StyledWeights, check: Callable[[], None]) -> Callable[[], None]:
        return lambda: self.styles.append(weights)

    def set_guidance(self, guidance: Guidance) -> None:
        assert guidance.kind == self.guidance.kind
        self.guidance = guidance

    def gather(self, frame: int, image: Any) -> None:
        picture = check_image(image).copy()
        assert not self._warm
        assert frame == len(self._gathered) < SINK
        self._gathered.append(picture)

    def warm_up(self, frames: int) -> Pending:
        assert 0 < frames == len(self._gathered)
        pictures, self._gathered, self._warm = self._gathered, [], True
        self.warm_ups.append(frames)
        self._kept.extend(pictures + pictures[-1:] * (SINK - frames))
        return ReadyPictures(pictures)

    def tick(self, frame: int | None, image: Any) -> Submitted:
        assert self._warm
        if frame is not None:
            picture = check_image(image).copy()
            assert frame > self._newest
            self._newest, self._pictures[frame] = frame, picture
            self._kept.append(picture)
            self._batch.enter(frame)
        self.ticks.append(frame)
        finished = self._batch.advance()
        left: Sequence[Image] = [] if finished is None else [self._pictures.pop(finished)]
        return Submitted(finished, ReadyPictures(left))

    def reset(self) -> None:
        assert not self._gathered
        assert not self._pictures
        self._batch.reset()
        self._kept.clear()
        self._warm, self._newest = False, SINK - 1

    def close(self) -> None:
        pass
