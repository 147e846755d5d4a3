"""Clips to train from: the same seed draws the same, cameras stay in their source, things move."""

from __future__ import annotations

from random import Random

import pytest
import torch

from live2diff_trt.training.camera import CameraPath, View, draw_path, film
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.light import Light, change_light
from live2diff_trt.training.scenes import add_things, draw_colour, draw_thing, make_gradients, make_piles
from tests.training.conftest import make_shot

CPU = torch.device("cpu")


def make_sampler(seed: int = 0) -> ClipSampler:
    return ClipSampler({"shot": make_shot(1), "still": make_shot(2, 1, 96)}, 64, 64, seed, CPU)


def test_equal_randoms_draw_equal_clips() -> None:
    sampler = make_sampler()
    clips = sampler.draw(Random(3), 4, 10)
    assert clips.shape == (4, 10, 3, 64, 64)
    assert clips.min() >= 0
    assert clips.max() <= 1
    torch.testing.assert_close(clips, make_sampler().draw(Random(3), 4, 10), rtol=0, atol=0)
    assert not torch.equal(clips, sampler.draw(Random(4), 4, 10))


def test_clips_move_smoothly() -> None:
    clips = make_sampler().draw(Random(0), 12, 10)
    steps = clips.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
    across = (clips[:, 0].roll(1, 0) - clips[:, 0]).abs().mean()
    assert steps.max() < 0.5 * across
    assert (steps > 1e-4).sum() >= 10


def test_a_clip_of_a_batch_does_not_depend_on_the_others() -> None:
    sampler = make_sampler()
    batch = sampler.draw(Random(5), 6, 4)
    random = Random(5)
    alone = torch.cat([sampler.draw(random, 1, 4) for _ in range(6)])
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-5)


def test_without_footage_nothing_is_drawn() -> None:
    with pytest.raises(TrainingError, match="there is no footage"):
        ClipSampler({}, 64, 64, 0, CPU)


def test_a_camera_that_stands_still_sees_its_source() -> None:
    source = torch.rand(2, 3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    whole = View(1, 0, 0, 0)
    paths = [CameraPath(whole, whole, mirrored=mirrored) for mirrored in (False, True)]
    plain, mirrored = film(source, paths, 48, 32)
    torch.testing.assert_close(plain, source[0])
    torch.testing.assert_close(mirrored, source[1].flip(3))


def test_a_path_is_walked_from_its_start_to_its_end() -> None:
    path = CameraPath(View(1, 0, 0, 0), View(0.5, 1, -1, 0.2), mirrored=False)
    assert path.view_at(0) == path.start
    assert path.view_at(1) == path.end
    assert draw_path(Random(1), 0.5, 0.0).view_at(1) == draw_path(Random(1), 0.5, 0.0).start


def test_things_move_before_a_background_that_does_not() -> None:
    random = Random(2)
    background = make_gradients([0.3], [(draw_colour(random), draw_colour(random))], 64, 48, CPU).expand(
        -1, 8, -1, -1, -1
    )
    scene = add_things(background, [[draw_thing(random, 8) for _ in range(3)]])
    assert scene.shape == (1, 8, 3, 48, 64)
    assert (background[:, 1:] == background[:, :-1]).all()
    assert scene.diff(dim=1).abs().amax() > 0.05


def test_a_clip_without_things_stays_as_it_is() -> None:
    scene = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(add_things(scene, [[], []]), scene)
    found = add_things(scene, [[], [draw_thing(Random(1), 3)]])
    torch.testing.assert_close(found[0], scene[0])
    assert not torch.equal(found[1], scene[1])


def test_a_pile_has_edges_everywhere() -> None:
    piles = make_piles(Random(0), 2, 100, 64, 64, CPU)
    assert piles.shape == (2, 3, 64, 64)
    edges = piles.diff(dim=3).abs().amax(dim=1) > 0.05
    for corner in edges.unfold(1, 32, 32).unfold(2, 31, 31).flatten(0, 2):
        assert corner.float().mean() > 0.02


def test_light_without_a_change_changes_nothing() -> None:
    clips = torch.rand(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    lights = [Light(), Light(order=(2, 1, 0)), Light(saturation=0)]
    plain, swapped, grey = change_light(clips, lights)
    torch.testing.assert_close(plain, clips[0])
    torch.testing.assert_close(swapped, clips[1].flip(1))
    torch.testing.assert_close(grey, clips[2].mean(1, keepdim=True).expand(-1, 3, -1, -1))
