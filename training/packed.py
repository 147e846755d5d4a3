"""Footage in one small file, so that a machine can train that has neither the packages nor a decoder."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.footage import CLIPS, HELD_OUT, PICTURES, Frames, Origin, read_shots

TRAINING_FILE = "footage.npz"
HELD_OUT_FILE = "held-out.npz"
WIDTH, HEIGHT = 192, 128
"""Of the pictures that the network is trained at, in pixels."""
_CLIP_SIZE = 288, 192
_PICTURE_SIZE = 432, 288


def pack_footage(folder: Path) -> tuple[Path, Path]:
    """Read all footage and write it to two files: what is trained on, and what judges.

    Clips and pictures are kept larger than they are trained at, so that a camera has room to move.

    Raises:
        TrainingError: if a file of footage is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = _read_all([(clip, _CLIP_SIZE) for clip in CLIPS] + [(each, _PICTURE_SIZE) for each in PICTURES])
    held_out = _read_all([(HELD_OUT, (WIDTH, HEIGHT))])
    return _write(folder / TRAINING_FILE, trained), _write(folder / HELD_OUT_FILE, held_out)


def read_packed(path: Path) -> dict[str, Frames]:
    """Return every shot by its name, uint8 [frames, height, width, 3]; pictures are shots of one frame.

    Raises:
        TrainingError: if there is no such file, or it is not footage.
    """
    try:
        with np.load(path) as shots:
            return {name: shots[name] for name in shots.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path} can't be read as footage ({error})",
            f"Make it with `python -m live2diff_trt.training pack --out {path.parent}`",
        ) from error


def _read_all(wanted: Iterable[tuple[Origin, tuple[int, int]]]) -> dict[str, Frames]:
    return {
        f"{origin.name}-{index}": shot
        for origin, size in wanted
        for index, shot in enumerate(read_shots(origin, *size))
    }


def _write(path: Path, shots: Mapping[str, Frames]) -> Path:
    np.savez_compressed(path, allow_pickle=False, **shots)
    return path
