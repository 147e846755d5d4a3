"""The compiled UNet: one graph for all step lists, and an error where there can't be one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from live2diff_trt.export.presets import TINY
from live2diff_trt.model.unet import Conditions
from live2diff_trt.model.weights import random_unet
from live2diff_trt.training.clip_attention import see_clip
from live2diff_trt.training.clip_pass import EncodedClips, denoise_clips, place_steps
from live2diff_trt.training.compiled import compile_unet
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.networks import SINK, WINDOW

FRAMES = 10


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every graph that is compiled: taken as it is, for a compiler would take minutes."""
    found: list[Any] = []
    compile_it = torch.compile

    def take(graph: Any, _inputs: Any) -> Any:
        found.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_it(network, backend=take, **options))
    return found


def draw(seed: int) -> Tensor:
    return torch.randn(FRAMES, TINY.unet.in_channels, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("one_thread")
def test_one_graph_serves_every_step_list(graphs: list[Any]) -> None:
    unet = random_unet(TINY.unet, seed=1).requires_grad_(True)
    run_unet = compile_unet(unet)
    clip, embeddings = EncodedClips(draw(1), draw(2)), torch.randn(1, 5, TINY.unet.cross_attention_channels)
    for step_list in ((30,), (30, 40), (20, 27, 35, 42)):
        noise = torch.stack([draw(step) for step in step_list])
        steps = place_steps(step_list, torch.device("cpu"))
        arguments = (unet, clip, embeddings, see_clip(FRAMES, WINDOW, SINK), steps, noise)
        found, wanted = [*denoise_clips(*arguments, run_unet=run_unet)], [*denoise_clips(*arguments)]
        torch.testing.assert_close(found[-1], wanted[-1])
        found[-1].sum().backward()
    assert len(graphs) == 1


def test_a_network_that_is_no_single_graph_is_refused() -> None:
    class Broken(nn.Module):
        def forward(self, sample: Tensor, _depth: Tensor, _conditions: Conditions) -> Tensor:
            torch._dynamo.graph_break()
            return sample

    run = compile_unet(Broken())
    with pytest.raises(TrainingError, match=r"can't be compiled .*[\s\S]*--no-compiled"):
        run(torch.zeros(1), torch.zeros(1), Conditions({}, {}, None))  # type: ignore[arg-type]
