"""Losses and gradients of a batch: as they are, or launched as one CUDA graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from live2diff_trt.training.step_timer import StageClock

Batch = TypeVar("Batch")
"""Tensors, and named tuples of them."""
_WARM_UPS = 3
"""Passes before one is captured: they compile the UNet and choose kernels, which can't be done while one is."""


class Task(Protocol[Batch]):
    """What a network learns."""

    def draw(self, random: Random, clock: StageClock) -> Batch:
        """Draw a batch; all that is decided on the host is decided here."""

    def find_losses(self, batch: Batch, clock: StageClock) -> Mapping[str, Tensor]:
        """Return losses by name; their sum is made smaller.

        What it launches depends on the batch's shapes alone, and the host never waits, so that it can be captured.
        """


class FindGradients(Protocol):
    """Leaves the gradients of a batch in ``grad`` of the parameters, and returns its losses by name."""

    def __call__(self, batch: Any, clock: StageClock) -> Mapping[str, Tensor]:
        """Find them; ``clock`` is told which stage time goes to."""


def choose_gradients(task: Task[Batch], parameters: Iterable[nn.Parameter], captured: bool) -> FindGradients:
    """Return how gradients are found: captured, which takes a GPU, or launch by launch."""
    plain = PlainGradients(task, parameters)
    return CapturedGradients(plain) if captured else plain


class PlainGradients:
    """Finds gradients launch by launch. They stay at the same addresses from the first batch on."""

    def __init__(self, task: Task[Any], parameters: Iterable[nn.Parameter]) -> None:
        self._task = task
        self._parameters = [*parameters]

    def __call__(self, batch: Any, clock: StageClock) -> Mapping[str, Tensor]:
        """See ``FindGradients``."""
        if gradients := [parameter.grad for parameter in self._parameters if parameter.grad is not None]:
            torch._foreach_zero_(gradients)
        losses = self._task.find_losses(batch, clock)
        with clock.stage("backward"):
            torch.stack([*losses.values()]).sum().backward()
        return {name: loss.detach() for name, loss in losses.items()}


class _Capture(NamedTuple):
    """A graph, the batch that it reads, and the losses that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Any
    losses: Mapping[str, Tensor]


class CapturedGradients:
    """Finds gradients by one CUDA graph for each shape of batch.

    The networks are small: launched one by one, their kernels leave the GPU waiting for a third of the time.
    """

    def __init__(self, plain: PlainGradients) -> None:
        self._plain = plain
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._captures: dict[tuple[torch.Size, ...], _Capture] = {}

    def __call__(self, batch: Any, clock: StageClock) -> Mapping[str, Tensor]:
        """See ``FindGradients``. The first batch of a shape takes longer: for it a graph is captured."""
        shapes = tuple(tensor.shape for tensor in tree_leaves(batch))
        if shapes not in self._captures:
            self._captures[shapes] = self._capture(batch)
        graph, inputs, losses = self._captures[shapes]
        with clock.stage("graph"):
            torch._foreach_copy_(tree_leaves(inputs), tree_leaves(batch))
            graph.replay()
            # Graphs share their memory: the next one may leave its own numbers where these losses lie.
            return {name: loss.clone() for name, loss in losses.items()}

    def _capture(self, batch: Any) -> _Capture:
        inputs, graph, silent = tree_map(torch.clone, batch), torch.cuda.CUDAGraph(), StageClock()
        # All of it on one stream: autograd runs a parameter's gradient on the stream that it was first used on.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                self._plain(inputs, silent)
        torch.cuda.current_stream().wait_stream(self._stream)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            losses = self._plain(inputs, silent)
        return _Capture(graph, inputs, losses)
