"""Which rows a stream's UNet has: one for each denoising step, and behind them those under the negative prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, get_args

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.guidance import Guidance, GuidanceKind

Held = TypeVar("Held")


@dataclass(frozen=True)
class StreamRows:
    """The UNet's rows.

    Attributes:
        steps: T, rows that hold a frame each.
        kind: of guidance. A row under the negative prompt sees the frame of the row at its step.
    """

    steps: int
    kind: GuidanceKind = "none"

    @cached_property
    def negative_steps(self) -> tuple[int, ...]:
        """The denoising steps of the rows under the negative prompt."""
        return Guidance(self.kind).negative_steps(self.steps)

    @property
    def step_of_row(self) -> tuple[int, ...]:
        """The denoising step of each row, counted from 0."""
        return (*range(self.steps), *self.negative_steps)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.steps + len(self.negative_steps)

    def spread(self, held: Sequence[Held]) -> list[Held]:
        """Return for every row what the row at its step holds."""
        return [*held, *(held[step] for step in self.negative_steps)]


@dataclass(frozen=True)
class StreamRoom:
    """What a stream has room for, as long as it is open.

    Attributes:
        max_steps: the largest T.
        kinds: of guidance; ``none`` is always one of them.
    """

    max_steps: int
    kinds: frozenset[GuidanceKind] = frozenset({"none"})

    @classmethod
    def of(cls, max_steps: int, kinds: Iterable[object]) -> StreamRoom:
        """Return the room for kinds of guidance, beside none; raise ControlError if one of them is no such kind."""
        known: dict[object, GuidanceKind] = {kind: kind for kind in get_args(GuidanceKind)}
        for kind in kinds:
            if kind not in known:
                raise ControlError(f"there is no guidance {kind!r}", f"Use {' or '.join(map(str, known))}")
        return cls(max_steps, frozenset({"none", *(known[kind] for kind in kinds)}))

    @property
    def unet_rows(self) -> int:
        """The most rows that the UNet may have."""
        return max(StreamRows(self.max_steps, kind).count for kind in self.kinds)

    @property
    def asks_the_unet(self) -> bool:
        """Whether there may be rows under the negative prompt."""
        return any(Guidance(kind).asks_the_unet for kind in self.kinds)

    @property
    def has_origins(self) -> bool:
        """Whether frames may carry the latent that their virtual noise leads back to."""
        return any(Guidance(kind).has_origins for kind in self.kinds)

    def check(self, steps: int, kind: GuidanceKind) -> None:
        """Raise ControlError if a stream is asked for more rows, or rows of another kind, than there is room for."""
        if steps > self.max_steps:
            raise ControlError(
                f"the stream has room for {self.max_steps} denoising steps, not for {steps}",
                f"Open it with max_steps={steps}, or name no more than {self.max_steps}",
            )
        if kind not in self.kinds:
            raise ControlError(
                f"the stream has no room for guidance of the kind {kind}",
                f"Open it with guidance_kinds={(*sorted(self.kinds), kind)}, or use {' or '.join(sorted(self.kinds))}",
            )
