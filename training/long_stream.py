"""A long stream over the ring, frame by frame, as the runtime runs it: does it drift?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.conformance.torch_network import TorchNetwork
from live2diff_trt.evaluation.picture_quality import find_psnr_db
from live2diff_trt.export.presets import TINY
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.footage import Frames
from live2diff_trt.training.networks import SINK, Networks
from live2diff_trt.training.pictures import to_frames
from live2diff_trt.training.styled_clip import encode_clip, make_wanted
from live2diff_trt.training.styles import Style


def stream_latents(denoiser: Denoiser, latents: Array, depth_latents: Array) -> Iterator[Array]:
    """Yield the clean latent of every frame, in order: warm-up, one frame a tick, then what is still on its way.

    Args:
        denoiser: with its prompt set.
        latents: [frames, channels, height, width]; the first 8 warm up.
        depth_latents: of their structure maps, the same shape.
    """
    yield from denoiser.warm_up(latents[:SINK], depth_latents[:SINK])[-1].x0
    waiting, left = iter(range(SINK, len(latents))), len(latents) - SINK
    while left:
        frame = next(waiting, None)
        if frame is not None:
            denoiser.enter(frame, latents[frame], depth_latents[frame])
        tick = denoiser.tick()
        if tick.finished is not None:
            left -= 1
            yield tick.prediction.x0[-1]


def stream_long(networks: Networks, shot: Frames, style: Style, frames: int, seed: int = 0) -> list[float]:
    """Stream a shot there and back again until there are so many frames; return each one's PSNR to its target, in dB.

    Networks must be on the CPU.
    """
    lap = 2 * len(shot) - 2
    places = [min(index % lap, lap - index % lap) for index in range(frames)]
    # From the ninth frame on a lap is like the last one, so a frame is encoded once.
    sources = [index if index < SINK else SINK + (index - SINK) % lap for index in range(frames)]
    clip = encode_clip(networks, shot[places[: max(sources) + 1]])
    wanted, spec, network = make_wanted(shot, style), _make_spec(shot), TorchNetwork(networks.unet)
    with torch.inference_mode():
        network.set_prompt(networks.embed_prompts([style.prompt]).numpy())
    denoiser = Denoiser(spec, network, PhiloxNoise(seed, spec.latent_shape))
    clean = stream_latents(denoiser, clip.latents.numpy()[sources], clip.depth_latents.numpy()[sources])
    found = []
    for place, latent in zip(places, clean, strict=True):
        with torch.inference_mode():
            (picture,) = to_frames(networks.decode(torch.from_numpy(latent)[None]) / 2 + 0.5)
        found.append(find_psnr_db(picture, wanted[place]))
    return found


def find_drift_db(likeness_db: list[float], shot_frames: int) -> float:
    """Return how many dB a stream lost between its first whole way there and back and its last.

    Raises:
        TrainingError: if it did not go twice.
    """
    lap = 2 * shot_frames - 2
    if len(likeness_db) < 2 * lap:
        raise TrainingError(
            f"{len(likeness_db)} frames do not show {shot_frames} frames there and back twice",
            f"Stream {2 * lap} frames or more",
        )
    last = likeness_db[-lap:]
    first = likeness_db[len(likeness_db) % lap :][:lap]
    return float(np.mean(first) - np.mean(last))


def _make_spec(shot: Frames) -> StreamSpec:
    height, width = shot.shape[1:3]
    return replace(TINY, width=width, height=height).spec()
