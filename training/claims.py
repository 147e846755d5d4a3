"""What the figures must say: temporal attention earns its place, and nothing gets worse."""

from __future__ import annotations

from collections.abc import Iterator

from live2diff_trt.training.evaluate import Evaluation

MOST_FLICKER = 0.8
"""Of the flicker of those that see no other frame."""
LEAST_GAIN_DB = 6.0
"""Over the untrained network."""
MOST_DRIFT_DB = 0.5
MOST_LOSS_DB = 1.5
"""Of any T from 1 to 4, against T = 2."""


def find_broken_claims(evaluation: Evaluation) -> list[str]:
    """Return a sentence for each claim that the figures do not bear out."""
    return [*_check_attention(evaluation), *_check_likeness(evaluation), *_check_drift(evaluation)]


def _check_attention(evaluation: Evaluation) -> Iterator[str]:
    likeness, flicker = (evaluation.mean("cache", figure) for figure in ("psnr_db", "flicker"))
    for other in ("cache masked", "twin"):
        if not evaluation.has(other):
            continue
        theirs_db, their_flicker = (evaluation.mean(other, figure) for figure in ("psnr_db", "flicker"))
        if likeness < theirs_db:
            yield f"the network is less like its targets than {other}: {likeness:.2f} < {theirs_db:.2f} dB"
        if flicker > MOST_FLICKER * their_flicker:
            yield f"flicker with the cache is {flicker / their_flicker:.2f} of that of {other}, not {MOST_FLICKER}"


def _check_likeness(evaluation: Evaluation) -> Iterator[str]:
    likeness = evaluation.mean("cache", "psnr_db")
    gain = likeness - evaluation.mean("untrained", "psnr_db")
    if gain < LEAST_GAIN_DB:
        yield f"training made the network {gain:.2f} dB more like its targets, not {LEAST_GAIN_DB}"
    for steps in (1, 3, 4):
        loss = likeness - evaluation.mean("cache", "psnr_db", steps)
        if loss > MOST_LOSS_DB:
            yield f"T = {steps} is {loss:.2f} dB less like the target than T = 2, more than {MOST_LOSS_DB}"


def _check_drift(evaluation: Evaluation) -> Iterator[str]:
    for style, drift in evaluation.drift_db.items():
        if drift > MOST_DRIFT_DB:
            yield f"{style} lost {drift:.2f} dB in {evaluation.drift_frames} frames, more than {MOST_DRIFT_DB}"
