"""Gradients: of one batch alone, always in the same place, and found without asking the device anything."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from live2diff_trt.export.presets import TINY
from live2diff_trt.training.autoencoder_training import AutoencoderTask
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.gradients import CapturedGradients, PlainGradients, Task
from live2diff_trt.training.networks import Networks
from live2diff_trt.training.step_timer import StageClock
from live2diff_trt.training.style_training import StyleTask
from tests.training.conftest import make_shot

FRAMES = 10


class Sum:
    """The gradient of its weights is the batch."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.ones(3))

    def draw(self, random: Random, clock: StageClock) -> Tensor:
        return torch.randn(3)

    def find_losses(self, batch: Tensor, clock: StageClock) -> Mapping[str, Tensor]:
        return {"half": (self.weight * batch).sum() / 2, "other half": (self.weight * batch).sum() / 2}


def make_tasks(device: torch.device) -> tuple[Networks, list[Task[Any]]]:
    """Small clips, and networks of the size that they have."""
    networks = Networks.make(TINY, device)
    sampler = ClipSampler({"shot": make_shot(1, FRAMES)}, 64, 64, 0, device)
    style = StyleTask(networks, sampler, 2, FRAMES)
    return networks, [AutoencoderTask(networks.autoencoder, networks.structure, sampler, 10), style]


def test_gradients_are_of_the_last_batch_and_stay_where_they_are() -> None:
    task = Sum()
    find_gradients = PlainGradients(task, [task.weight])
    places = set()
    for _ in range(3):
        batch = task.draw(Random(0), StageClock())
        losses = find_gradients(batch, StageClock())
        assert task.weight.grad is not None
        torch.testing.assert_close(task.weight.grad, batch)
        assert set(losses) == {"half", "other half"}
        assert not any(loss.requires_grad for loss in losses.values())
        places.add(task.weight.grad.data_ptr())
    assert len(places) == 1


def test_losses_ask_nothing_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tensors have no numbers, whoever wants one on the host is found out; a graph could not be captured."""
    networks, tasks = make_tasks(torch.device("cpu"))
    batches = [task.draw(Random(1), StageClock()) for task in tasks]
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for such tensors
    for network in (networks.autoencoder, networks.unet, networks.text_encoder, networks.structure):
        network.to("meta")
    tasks[1] = StyleTask(networks, tasks[1]._sampler, 2, FRAMES)  # type: ignore[attr-defined]  # its mask moves, too
    for task, batch in zip(tasks, batches, strict=True):
        losses = task.find_losses(tree_map(lambda tensor: tensor.to("meta"), batch), StageClock())
        torch.stack([*losses.values()]).sum().backward()
        assert {loss.device.type for loss in losses.values()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.parametrize("which", [0, 1], ids=["autoencoder", "styles"])
def test_captured_gradients_are_those_of_single_launches(which: int) -> None:
    networks, tasks = make_tasks(torch.device("cuda"))
    task = tasks[which]
    modules: list[nn.Module] = [networks.autoencoder] if which == 0 else [networks.unet, networks.text_encoder]
    networks.autoencoder.requires_grad_(which == 0)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    plain = PlainGradients(task, parameters)
    captured = CapturedGradients(plain)
    for step in range(8):  # several step lists, some of them again
        torch.manual_seed(step)
        batch = task.draw(Random(step), StageClock())
        found = {name: loss.item() for name, loss in captured(batch, StageClock()).items()}
        gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
        if which == 0:  # its noise is drawn anew
            assert all(np.isfinite(value) for value in found.values())
            continue
        wanted = {name: loss.item() for name, loss in plain(batch, StageClock()).items()}
        assert found == pytest.approx(wanted, rel=1e-2)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, parameter.grad, rtol=0.05, atol=1e-3)
