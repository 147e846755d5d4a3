"""A whole clip in one pass is what the stream computes frame by frame over its kv-cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from live2diff_trt.bundle.noise import Purpose, standard_normal
from live2diff_trt.conformance.torch_network import TorchNetwork
from live2diff_trt.export.presets import TINY
from live2diff_trt.model.weights import random_unet
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise
from live2diff_trt.runtime.kv_window import KvWindow
from live2diff_trt.training.clip_attention import see_clip
from live2diff_trt.training.clip_pass import EncodedClips, denoise_clips, place_steps
from live2diff_trt.training.long_stream import stream_latents

SINK, WINDOW = 8, 16


def test_a_streamed_frame_sees_what_the_stream_shows_it() -> None:
    window = KvWindow(1, WINDOW, SINK)
    view = see_clip(40, WINDOW, SINK)
    holds: dict[int, int] = {slot: slot for slot in range(SINK)}
    for frame in range(SINK, 40):
        shown = window.view()
        (slots,) = np.nonzero(shown.visible[0])
        wanted = {holds[int(slot)]: int(shown.past_position[0, slot]) for slot in slots}
        wanted[frame] = int(shown.position[0])
        seen = view.visible[frame].nonzero()[:, 0].tolist()
        assert {other: int(view.position[frame, other]) for other in seen} == wanted
        holds[int(shown.write_slot[0])] = frame
        window.advance([True])


def test_warm_up_frames_see_each_other_at_their_own_places() -> None:
    view = see_clip(12, WINDOW, SINK)
    assert view.visible[:SINK, :SINK].all()
    assert not view.visible[:SINK, SINK:].any()
    assert (view.position[:SINK, :SINK] == torch.arange(SINK)).all()


def test_alone_a_frame_sees_itself_where_it_was() -> None:
    alone, cached = (see_clip(20, WINDOW, SINK, sight) for sight in ("alone", "cache"))
    assert (alone.visible == torch.eye(20, dtype=torch.bool)).all()
    assert (alone.position.diagonal() == cached.position.diagonal()).all()


def test_with_the_future_a_frame_sees_as_many_as_its_cache_would_hold() -> None:
    view = see_clip(40, WINDOW, SINK, "future")
    assert view.visible[20].nonzero()[:, 0].tolist() == [*range(SINK), *range(16, 24)]
    assert view.position[20, 16:24].tolist() == list(range(8, 16))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("step_list", [(30,), (30, 40), (0, 16, 32, 45)])
def test_a_clip_in_one_pass_equals_the_stream(step_list: tuple[int, ...]) -> None:
    frames, seed = 21, 5
    preset = replace(TINY, width=64, height=64, step_list=step_list)
    spec, unet = preset.spec(), random_unet(TINY.unet, seed=1)
    latents, depth_latents = (_draw((frames, *spec.latent_shape), key) for key in (1, 2))
    embeddings = _draw((1, 5, spec.text_channels), 3)

    network, stream_noise = TorchNetwork(unet), PhiloxNoise(seed, spec.latent_shape)
    network.set_prompt(embeddings)
    wanted = np.stack([*stream_latents(Denoiser(spec, network, stream_noise), latents, depth_latents)])
    noise = [_gather_noise(stream_noise, frames, step) for step in range(spec.steps)]
    with torch.inference_mode():
        *_, found = denoise_clips(
            unet,
            EncodedClips(torch.from_numpy(latents), torch.from_numpy(depth_latents)),
            torch.from_numpy(embeddings),
            see_clip(frames, spec.window, spec.sink),
            place_steps(step_list, torch.device("cpu")),
            torch.stack(noise),
        )
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-4)


def _gather_noise(noise: PhiloxNoise, frames: int, step: int) -> torch.Tensor:
    """The stream's own noise of every frame at one step."""
    later = noise.enter if step == 0 else lambda frame: noise.renoise(frame, step)
    draws = [noise.warm_up(frame, step) if frame < SINK else later(frame) for frame in range(frames)]
    return torch.from_numpy(np.stack(draws))


def _draw(shape: tuple[int, ...], key: int) -> NDArray[np.float32]:
    return standard_normal(shape, 11, key, 0, Purpose.ENTER)
