"""Frames of an output with the frames of the input they were made from, decoded as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, zip_longest

from live2diff_trt.evaluation.errors import EvaluationError
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.frame import Image, SourceFrame
from live2diff_trt.runtime.source import FolderSource, Source


@dataclass(frozen=True, eq=False)
class FramePair:
    """One frame, before and after.

    Attributes:
        input_image: uint8 [height, width, 3], cropped and resized to the output's size as the stream does it.
        output_image: uint8 [height, width, 3].
        time: presentation time of the output's frame, in seconds.
    """

    input_image: Image
    output_image: Image
    time: Fraction


def count_pairs(source: Source, result: Source, frames: int | None = None) -> int | None:
    """Return how many pairs the containers promise, at most ``frames``; None if one of them does not tell.

    Raises:
        EvaluationError: the clips are not of one length.
    """
    of_input, of_output = source.frame_count, result.frame_count
    if of_input is None or of_output is None:
        return frames
    common = min(of_input, of_output)
    if of_input != of_output and (frames is None or frames > common):
        raise _unlike_length(f"the input has {of_input} frames and the output {of_output}", common)
    return common if frames is None else min(common, frames)


def pair_frames(source: Source, result: Source, frames: int | None = None) -> Iterator[FramePair]:
    """Yield the frames of two clips in pairs, by their order: a stream delivers every frame once, in order.

    Args:
        source: the input. Read from here on; of any size, which may change.
        result: the output. Read from here on.
        frames: stop after so many.

    Raises:
        EvaluationError: the clips are not of one length; a pair is not shown at one time; the output's size changes.
    """
    clock = _SharedClock(source, result)
    size: tuple[int, int] | None = None
    pairs = zip_longest(islice(source, frames), islice(result, frames))
    for index, (before, after) in enumerate(pairs):
        if before is None or after is None:
            shorter = "output" if after is None else "input"
            raise _unlike_length(f"the {shorter} ends after {index} frames, the other clip goes on", index)
        clock.check(index, before, after)
        size = _check_size(index, after.image, size)
        yield FramePair(_see_as_stream(before.image, *size), after.image, after.time)


class _SharedClock:
    """Knows whether two frames are shown at one time. Pictures in a folder have no times of their own."""

    def __init__(self, source: Source, result: Source) -> None:
        self._has_times = not isinstance(source, FolderSource) and not isinstance(result, FolderSource)
        self._rates = source.frame_rate, result.frame_rate
        self._tolerance = 1 / (2 * source.frame_rate)

    def check(self, index: int, before: SourceFrame, after: SourceFrame) -> None:
        """Raise EvaluationError if a frame is shown more than half a frame earlier or later than its input."""
        if self._has_times and abs(before.time - after.time) > self._tolerance:
            of_input, of_output = (f"{float(rate):.5g}" for rate in self._rates)
            raise EvaluationError(
                f"frame {index} is shown at {float(before.time):.3f} s in the input ({of_input} frames per second) "
                f"and at {float(after.time):.3f} s in the output ({of_output})",
                "Compare an output with the clip it was made from, every frame of it",
            )


def _check_size(index: int, image: Image, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size of an output's frame, width and height; raise EvaluationError if it is not that of the last."""
    found = image.shape[1], image.shape[0]
    if size is not None and found != size:
        raise EvaluationError(
            f"the output changes from {size[0]}x{size[1]} to {found[0]}x{found[1]} at frame {index}",
            "Compare a clip of one size, as a stream writes it",
        )
    return found


def _see_as_stream(image: Image, width: int, height: int) -> Image:
    return reference.postprocess(reference.preprocess(image, width, height))


def _unlike_length(problem: str, common: int) -> EvaluationError:
    return EvaluationError(
        problem,
        f"Compare an output with the whole clip it was made from, or the first frames of both with --frames {common}",
    )
