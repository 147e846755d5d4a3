"""Measures an output against the input it was made from, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from live2diff_trt.evaluation.depth_error import DepthComparison
from live2diff_trt.evaluation.errors import EvaluationError
from live2diff_trt.evaluation.figures import FrameFigures
from live2diff_trt.evaluation.frame_pairs import FramePair
from live2diff_trt.evaluation.optical_flow import SMALLEST_SIDE, follow_motion
from live2diff_trt.evaluation.picture_quality import find_ssim
from live2diff_trt.evaluation.warp_error import find_warp_error


def evaluate_frames(pairs: Iterable[FramePair], depth: DepthComparison | None) -> Iterator[FrameFigures]:
    """Yield every frame's figures. No more than two pairs are kept at a time.

    Args:
        pairs: an output with its input, frame by frame.
        depth: compares their structure; None leaves it out.

    Raises:
        EvaluationError: there are fewer than two frames, or they are too small; and what ``pairs`` raises.
        BackendError: the depth network fails.
    """
    last: FramePair | None = None
    count = 0
    for pair in pairs:
        _check_room(pair)
        count += 1
        depth_error = None if depth is None else depth.find_error(pair.output_image, pair.input_image)
        yield _measure(last, pair, depth_error)
        last = pair
    if count < 2:
        raise EvaluationError(
            f"the clips have {count} frame{'s' * (count != 1)}", "Compare two or more: consistency is between frames"
        )


def _measure(last: FramePair | None, pair: FramePair, depth_error: float | None) -> FrameFigures:
    """Compare a frame with its input, and with the frame before it, if there is one."""
    time = float(pair.time)
    if last is None:
        return FrameFigures(time=time, depth_error=depth_error)
    motion = follow_motion(last.input_image, pair.input_image)
    return FrameFigures(
        time=time,
        warp_error=find_warp_error(last.output_image, pair.output_image, motion),
        input_warp_error=find_warp_error(last.input_image, pair.input_image, motion),
        visible=motion.share,
        similarity=find_ssim(pair.output_image, last.output_image),
        input_similarity=find_ssim(pair.input_image, last.input_image),
        depth_error=depth_error,
    )


def _check_room(pair: FramePair) -> None:
    height, width = pair.output_image.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise EvaluationError(
            f"motion can't be followed in frames of {width}x{height} pixels",
            f"Compare clips with sides of {SMALLEST_SIDE} pixels or more",
        )
