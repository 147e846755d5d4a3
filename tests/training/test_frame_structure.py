"""The stand-in for depth: fixed, smooth, and scaled as the stream scales it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from live2diff_trt.kernels import reference
from live2diff_trt.training.frame_structure import FrameStructure
from live2diff_trt.training.structure_map import make_structure_map
from tests.training.conftest import make_shot


def make_pictures(frames: int) -> Tensor:
    return torch.from_numpy(make_shot(5, frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_maps_are_those_of_the_stream() -> None:
    clips, warm_up = torch.stack([make_pictures(5), make_pictures(5).flip(0)]), 3
    found = FrameStructure().as_pictures(clips, warm_up).numpy()

    network = make_structure_map()
    for pictures, maps_found in zip(clips, found, strict=True):
        small = np.stack([reference.resize_bilinear(picture, 128, 128) for picture in pictures.numpy()])
        maps = network(torch.from_numpy(small)).detach().numpy()
        alone = [reference.depth_normalise(one) for one in maps[warm_up:]]
        scaled = [*reference.depth_normalise(maps[:warm_up]), *alone]
        wanted = np.stack([reference.resize_bilinear(one, 64, 64) for one in scaled])
        np.testing.assert_allclose(maps_found, np.repeat(wanted[:, None], 3, axis=1), atol=1e-5)


def test_a_flat_frame_has_a_flat_map() -> None:
    flat = FrameStructure().as_pictures(torch.full((1, 2, 3, 64, 64), -1.0), warm_up=0)
    inner = flat[..., 8:-8, 8:-8]
    assert torch.isfinite(flat).all()
    assert (inner == inner[..., :1, :1]).all()


def test_the_map_is_bright_where_the_picture_is_and_dark_along_edges() -> None:
    picture = torch.full((1, 3, 128, 128), -0.5)
    picture[..., 64:] = 0.5
    (found,) = make_structure_map()(picture)
    row = found[64]
    assert row[100] > row[20]
    assert row[66] < row[100] - 0.1  # as bright as there, but at an edge


def test_the_map_is_always_the_same() -> None:
    pictures = make_pictures(1)
    torch.testing.assert_close(make_structure_map()(pictures), make_structure_map()(pictures), rtol=0, atol=0)
