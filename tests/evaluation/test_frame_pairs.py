"""Frames of two clips line up, or it is said why they do not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.evaluation.errors import EvaluationError
from live2diff_trt.evaluation.frame_pairs import FramePair, count_pairs, pair_frames
from live2diff_trt.runtime.source import FolderSource, Source, TestPatternSource, open_source
from tests.evaluation.made_clips import pan, texture, write_clip


def pattern(frames: int | None, size: tuple[int, int] = (64, 64), rate: int = 25) -> TestPatternSource:
    return TestPatternSource(*size, frame_rate=Fraction(rate), frame_count=frames)


def paired(source: Source, result: Source, frames: int | None = None) -> list[FramePair]:
    with source, result:
        return list(pair_frames(source, result, frames))


def test_frames_come_in_pairs_with_their_times() -> None:
    pairs = paired(pattern(5), pattern(5))
    assert [pair.time for pair in pairs] == [index / Fraction(25) for index in range(5)]
    for pair in pairs:
        np.testing.assert_array_equal(pair.input_image, pair.output_image)


def test_the_input_is_cropped_as_the_stream_does_it(tmp_path: Path) -> None:
    wide = [texture(64, 128, seed) for seed in range(3)]
    source = FolderSource(write_clip(tmp_path / "in", wide))
    result = FolderSource(write_clip(tmp_path / "out", [frame[:, 32:96] for frame in wide]))
    for pair in paired(source, result):
        np.testing.assert_array_equal(pair.input_image, pair.output_image)


def test_an_input_of_another_size_is_resized() -> None:
    (pair,) = paired(pattern(1, (128, 128)), pattern(1))
    assert pair.input_image.shape == pair.output_image.shape == (64, 64, 3)
    assert np.abs(pair.input_image.astype(int) - pair.output_image).mean() < 5


def test_the_input_may_change_its_size(tmp_path: Path) -> None:
    write_clip(tmp_path / "in", pan(2, size=(64, 64)))
    write_clip(tmp_path / "larger", pan(1, size=(96, 96)))
    (tmp_path / "larger" / "frame-000000.png").rename(tmp_path / "in" / "frame-000002.png")
    pairs = paired(FolderSource(tmp_path / "in"), pattern(3))
    assert [pair.input_image.shape for pair in pairs] == [(64, 64, 3)] * 3


def test_the_output_may_not(tmp_path: Path) -> None:
    write_clip(tmp_path / "out", pan(2, size=(64, 64)))
    write_clip(tmp_path / "larger", pan(1, size=(96, 80)))
    (tmp_path / "larger" / "frame-000000.png").rename(tmp_path / "out" / "frame-000002.png")
    with pytest.raises(EvaluationError, match="changes from 64x64 to 96x80 at frame 2"):
        paired(pattern(3), FolderSource(tmp_path / "out"))


@pytest.mark.parametrize(("of_input", "of_output", "shorter"), [(4, 3, "output"), (3, 4, "input")])
def test_clips_of_unlike_length_are_refused(of_input: int, of_output: int, shorter: str) -> None:
    with pytest.raises(EvaluationError, match=rf"the {shorter} ends after 3 frames.* --frames 3\.$"):
        paired(pattern(of_input), pattern(of_output))


def test_the_first_frames_of_unlike_clips_can_be_compared() -> None:
    assert len(paired(pattern(4), pattern(3), frames=3)) == 3
    assert len(paired(pattern(None), pattern(None), frames=3)) == 3  # nothing is decoded beyond them
    assert len(paired(pattern(2), pattern(2), frames=3)) == 2


@pytest.mark.parametrize(
    ("of_input", "of_output", "frames", "pairs"),
    [(5, 5, None, 5), (5, 5, 3, 3), (5, 5, 9, 5), (5, 4, 4, 4), (None, 4, None, None), (None, 4, 3, 3)],
)
def test_pairs_are_counted_beforehand(
    of_input: int | None, of_output: int, frames: int | None, pairs: int | None
) -> None:
    assert count_pairs(pattern(of_input), pattern(of_output), frames) == pairs


@pytest.mark.parametrize("frames", [None, 5])
def test_unlike_length_is_known_beforehand_where_containers_tell(frames: int | None) -> None:
    with pytest.raises(EvaluationError, match=r"the input has 5 frames and the output 4.* --frames 4\.$"):
        count_pairs(pattern(5), pattern(4), frames)


def test_clips_of_unlike_rate_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"frame 4 is shown at 0.160 s in the input \(25 .*at 0.133 s.* \(30\)"):
        paired(pattern(10), pattern(10, rate=30))


def test_rates_may_differ_by_less_than_half_a_frame_in_the_end() -> None:
    with pattern(10) as source, TestPatternSource(64, 64, frame_rate=Fraction(26), frame_count=10) as result:
        assert len(list(pair_frames(source, result))) == 10


def test_pictures_in_a_folder_have_no_rate(tmp_path: Path) -> None:
    assert len(paired(pattern(10, rate=30), FolderSource(write_clip(tmp_path / "out", pan(10))))) == 10


def test_a_video_keeps_the_times_of_its_input(tmp_path: Path) -> None:
    rate = Fraction(24000, 1001)
    clip = write_clip(tmp_path / "out.mp4", pan(10), rate)
    with TestPatternSource(64, 64, frame_rate=rate, frame_count=10) as source, open_source(str(clip)) as result:
        assert len(list(pair_frames(source, result))) == 10
