"""Held-out footage decides: likeness to each style's filter, flicker, and what temporal attention has to do with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from live2diff_trt.bundle.schedule import ScheduleSpec, spread_steps
from live2diff_trt.evaluation.optical_flow import Motion
from live2diff_trt.training.clip_attention import Sight
from live2diff_trt.training.clip_pass import EncodedClips
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.long_stream import find_drift_db, stream_long
from live2diff_trt.training.networks import Networks
from live2diff_trt.training.styled_clip import Quality, encode_clip, find_quality, follow_clip, make_styled, make_wanted
from live2diff_trt.training.styles import STYLES, Style

logger = logging.getLogger(__name__)

STRENGTH = 0.4
MOST_STEPS = 4
DEFAULT_STEPS = 2


class Contestant(NamedTuple):
    """A network, what its frames see of each other, and how many steps it takes."""

    name: str
    networks: Networks
    sight: Sight
    steps: int


@dataclass(frozen=True)
class Result:
    """What a contestant made of all held-out shots in one style; its flicker beside that of the filter itself."""

    contestant: str
    style: str
    steps: int
    psnr_db: float
    ssim: float
    flicker: float
    target_flicker: float


@dataclass(frozen=True)
class Evaluation:
    """All figures.

    Attributes:
        results: of every contestant in every style.
        drift_db: by style, how much likeness a long stream lost.
        drift_frames: how long it was.
    """

    results: tuple[Result, ...]
    drift_db: Mapping[str, float]
    drift_frames: int

    def mean(self, contestant: str, figure: str, steps: int = DEFAULT_STEPS) -> float:
        """Return the mean of a figure over all styles."""
        found = [
            getattr(result, figure)
            for result in self.results
            if (result.contestant, result.steps) == (contestant, steps)
        ]
        return float(np.mean(found))

    def has(self, contestant: str) -> bool:
        """Return whether a contestant was there."""
        return any(result.contestant == contestant for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read what ``to_json`` wrote."""
        return cls(tuple(Result(**one) for one in values["results"]), values["drift_db"], values["drift_frames"])


def list_contestants(trained: Networks, untrained: Networks, twin: Networks | None) -> Iterator[Contestant]:
    """Yield who is compared: the network at 1 to 4 steps, and at 2 steps what it is when something is taken away."""
    for steps in range(1, MOST_STEPS + 1):
        yield Contestant("cache", trained, "cache", steps)
    yield Contestant("cache masked", trained, "alone", DEFAULT_STEPS)
    yield Contestant("future frames", trained, "future", DEFAULT_STEPS)
    if twin is not None:
        yield Contestant("twin", twin, "alone", DEFAULT_STEPS)
    yield Contestant("untrained", untrained, "cache", DEFAULT_STEPS)


class HeldOutClip(NamedTuple):
    """A shot, what a UNet sees of it, and how it moves."""

    frames: Frames
    encoded: EncodedClips
    motions: list[Motion]


def evaluate(
    shots: Mapping[str, Frames], trained: Networks, untrained: Networks, twin: Networks | None, drift_frames: int
) -> Evaluation:
    """Compare everyone on every shot and style, and stream the longest shot for ``drift_frames`` frames.

    All networks have the autoencoder of the trained one.
    """
    clips = [HeldOutClip(frames, encode_clip(trained, frames), follow_clip(frames)) for frames in shots.values()]
    results = []
    for contestant in list_contestants(trained, untrained, twin):
        for style in STYLES:
            results.append(_judge(contestant, style, clips))
            logger.info("%s", results[-1])
    longest = max(shots.values(), key=len)
    drift = {}
    for style in STYLES:
        likeness = stream_long(trained, longest, style, drift_frames)
        drift[style.name] = find_drift_db(likeness, len(longest))
        logger.info("%s lost %.2f dB in %d frames", style.name, drift[style.name], drift_frames)
    return Evaluation(tuple(results), drift, drift_frames)


def _judge(contestant: Contestant, style: Style, clips: list[HeldOutClip]) -> Result:
    step_list = spread_steps(STRENGTH, contestant.steps, ScheduleSpec())
    found: list[Quality] = []
    targets: list[Quality] = []
    for frames, encoded, motions in clips:
        wanted = make_wanted(frames, style)
        styled = make_styled(contestant.networks, encoded, style, step_list, contestant.sight)
        found.append(find_quality(styled, wanted, motions))
        targets.append(find_quality(wanted, wanted, motions))
    return Result(
        contestant.name,
        style.name,
        contestant.steps,
        psnr_db=float(np.mean([quality.psnr_db for quality in found])),
        ssim=float(np.mean([quality.ssim for quality in found])),
        flicker=float(np.mean([quality.flicker for quality in found])),
        target_flicker=float(np.mean([quality.flicker for quality in targets])),
    )
