from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.serve.jpeg import decode_jpeg, encode_jpeg
from tests.serve.made_up_server import picture

MOST = 1 << 20


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (65, 33), (1, 1), (512, 512)])
def test_a_picture_survives(size: tuple[int, int]) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1).astype(np.uint8)
    file = encode_jpeg(image)
    assert file.startswith(b"\xff\xd8")
    assert file.endswith(b"\xff\xd9")
    decoded = decode_jpeg(file, MOST)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).mean() < 4


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (12, 200, 77)])
def test_colours_keep_their_range(colour: tuple[int, int, int]) -> None:
    decoded = decode_jpeg(encode_jpeg(picture(*colour)), MOST)
    assert np.abs(decoded.astype(int) - colour).max() <= 3


def test_a_picture_that_is_too_large_is_refused() -> None:
    with pytest.raises(FrameError, match="up to 1000 pixels"):
        decode_jpeg(encode_jpeg(picture()), 1000)


@given(st.binary(max_size=200))
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_jpeg(data, MOST)


@given(st.integers(0, 600), st.integers(0, 600), st.binary(max_size=8))
def test_a_damaged_picture_is_refused_or_shown(start: int, end: int, other: bytes) -> None:
    file = encode_jpeg(picture())
    try:
        decoded = decode_jpeg(file[:start] + other + file[end:], MOST)
    except FrameError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[0] * decoded.shape[1] <= MOST
