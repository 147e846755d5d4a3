"""The opponent at its best: our network run by PyTorch, everything resident on the device.

The kv-caches never move: a tick writes its slot in place, then attends over the cache. What changes from tick to tick
is a few integers in device buffers, so that a tick can be captured into a CUDA graph, compiled or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.model.temporal_attention import KeyValue, PositionTables, WarmUpAttend
from live2diff_trt.model.unet import CausalUNet, Conditions
from live2diff_trt.runtime.kv_ring import Array, KeyValues
from live2diff_trt.runtime.kv_window import KvWindow

_TICKS_BEFORE_CAPTURE = 3


class WindowBuffers:
    """What the attentions read of a ``KvWindow``, on the device; ``upload`` changes them in place.

    A tick writes its slot before it attends. So that slot is seen as what it then holds: the row's own frame.

    Attributes:
        rows: [rows] int64, 0, 1, …
        position, write_slot: [rows] int64.
        slot_position: [rows, window] int64.
        bias: [rows, window], 0 or −inf.
    """

    def __init__(self, rows: int, window: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows = torch.arange(rows, device=device)
        self.position = torch.zeros(rows, dtype=torch.int64, device=device)
        self.write_slot = torch.zeros_like(self.position)
        self.slot_position = torch.zeros(rows, window, dtype=torch.int64, device=device)
        self.bias = torch.zeros(rows, window, dtype=dtype, device=device)

    def upload(self, window: KvWindow) -> None:
        """Copy positions, slots and mask of the next tick to the device. Does not wait for it."""
        view = window.view()
        rows = np.arange(len(view.position))
        slot_position, bias = view.past_position.astype(np.int64), view.past_bias("float32")
        slot_position[rows, view.write_slot] = view.position
        bias[rows, view.write_slot] = 0
        # Not pinned: CUDA has taken pageable memory before the call returns, so it need not be kept.
        self.position.copy_(torch.tensor(view.position), non_blocking=True)
        self.write_slot.copy_(torch.tensor(view.write_slot), non_blocking=True)
        self.slot_position.copy_(torch.from_numpy(slot_position), non_blocking=True)
        self.bias.copy_(torch.from_numpy(bias), non_blocking=True)


class RingAttend:
    """Writes a temporal attention's new slot into its cache, in place, then attends over the whole cache.

    Equal to ``StreamingAttend`` and a ring that is written after it, for rows that hold a real frame. One query per
    position: a score is a product and a sum, which a compiler fuses, so that each cache is read once. PyTorch's fused
    attention over the same caches was slower in every row (20.6 against 11.9 ms compiled, 28.0 against 27.2 ms in a
    graph, on an H200 at the base point).
    """

    def __init__(self, past: Mapping[str, KeyValue], window: WindowBuffers, heads: int) -> None:
        self._past = past
        self._window = window
        self._heads = heads

    def __call__(self, place: str, q: Tensor, k: Tensor, v: Tensor, tables: PositionTables) -> Tensor:
        """Attend at ``place``: see ``TemporalAttend``. Changes that place's cache in place."""
        window = self._window
        past_k, past_v = self._past[place]
        past_k[window.rows, window.write_slot] = k
        past_v[window.rows, window.write_slot] = v
        # Scores and weights: [rows, window, positions, heads].
        keys = self._by_head(past_k + tables.k[window.slot_position].unsqueeze(2))
        values = self._by_head(past_v + tables.v[window.slot_position].unsqueeze(2))
        here_q = q + tables.q[window.position].unsqueeze(1)
        queries = self._by_head(here_q * (q.shape[-1] // self._heads) ** -0.5).unsqueeze(1)
        scores = (queries * keys).sum(-1) + window.bias[:, :, None, None]
        weights = scores.softmax(dim=1, dtype=torch.float32).to(q.dtype)
        return (weights.unsqueeze(-1) * values).sum(1).flatten(2)

    def _by_head(self, tensor: Tensor) -> Tensor:
        """[…, channels] → […, heads, channels of a head]."""
        return tensor.unflatten(-1, (self._heads, -1))


class TorchTick:
    """One tick of all rows on static device buffers. A row without a real frame computes something and leaves no trace.

    Args:
        unet: on a CUDA device, or on the CPU. On CUDA, cuDNN is told to search for its fastest convolutions, for the
            whole process.
        spec: of the stream; its dtype is that of every buffer, and must be that of the weights.

    Attributes:
        past: place → (k, v), each [rows, window, positions, channels], the caches.
        sample: [rows, latent channels, height, width], an input; its owner changes it in place.
        depth_features: [rows, depth channels, height, width], alike.
        model_output: as sample, written by ``step``.

    Raises:
        MeasurementError: the weights have another dtype.
    """

    def __init__(self, unet: CausalUNet, spec: StreamSpec) -> None:
        weight = unet.conv_in.weight
        dtype, device = getattr(torch, spec.dtype), weight.device
        if weight.dtype != dtype:
            raise MeasurementError(
                f"the weights are {weight.dtype}, the stream is {spec.dtype}", "Build both with one dtype"
            )
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        self._unet = unet
        self._spec = spec
        self._device = device
        self._window = KvWindow(spec.steps, spec.window, spec.sink)
        self._buffers = WindowBuffers(spec.steps, spec.window, dtype, device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(spec.steps, *shape, dtype=dtype, device=device)

        # Each its own memory, not views of one: a compiler must see that writing one leaves the others alone.
        self.past: dict[str, KeyValue] = {
            cache.name: (
                zeros(spec.window, cache.positions, cache.channels),
                zeros(spec.window, cache.positions, cache.channels),
            )
            for cache in spec.kv_caches
        }
        self._time = {entry.name: zeros(entry.channels) for entry in spec.time_projections}
        self._prompt: dict[str, KeyValue] = {
            entry.name: (zeros(spec.prompt_tokens, entry.channels), zeros(spec.prompt_tokens, entry.channels))
            for entry in spec.prompt_kvs
        }
        self.sample = zeros(*spec.latent_shape).contiguous(memory_format=torch.channels_last)
        self.depth_features = zeros(*spec.depth_features_shape).contiguous(memory_format=torch.channels_last)
        self.model_output = zeros(*spec.latent_shape)
        self._conditions = Conditions(self._time, self._prompt, RingAttend(self.past, self._buffers, spec.heads))
        self._network: Callable[[Tensor, Tensor, Conditions], Tensor] = self._unet
        self._buffers.upload(self._window)

    @torch.inference_mode()
    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        """Compute every resnet's time projection for the denoising steps, [rows] int32, in place."""
        projections = self._unet.embed_time(torch.from_numpy(timesteps).to(self._device))
        for place, projection in projections.items():
            self._time[place].copy_(projection)

    @torch.inference_mode()
    def set_prompt(self, text_embeddings: Array) -> None:
        """Compute keys and values of every cross-attention for one prompt, [1, tokens, channels], in place."""
        embeddings = torch.from_numpy(text_embeddings).to(self._device, self.sample.dtype)
        for place, projected in self._unet.embed_prompt(embeddings).items():
            for buffer, tensor in zip(self._prompt[place], projected, strict=True):
                buffer.copy_(tensor.expand_as(buffer))

    def fill_random_past(self, seed: int, count: int) -> None:
        """Fill all slots with normal values and pretend that ``count`` frames were streamed into every row.

        The same seed gives the same values on the same kind of device only: copy them with ``past_numpy``.
        """
        generator = torch.Generator(self._device).manual_seed(seed)
        for pair in self.past.values():
            for tensor in pair:
                tensor.normal_(generator=generator)
        self.reset()
        for _ in range(count):
            self._window.advance([True] * self._spec.steps)
        self._buffers.upload(self._window)

    def reset(self) -> None:
        """Forget every frame. What the caches hold is hidden until it is overwritten."""
        self._window.reset()
        self._buffers.upload(self._window)

    def past_numpy(self) -> KeyValues:
        """Return a copy of the caches on the host, as a ``KvRing`` has them; waits for the device."""
        return {place: (k.numpy(force=True).copy(), v.numpy(force=True).copy()) for place, (k, v) in self.past.items()}

    def load(self, sample: Array, depth_features: Array) -> None:
        """Copy one tick's inputs to the device: latents and embedded depth, [rows, channels, height, width] each."""
        self.sample.copy_(torch.from_numpy(sample), non_blocking=True)
        self.depth_features.copy_(torch.from_numpy(depth_features), non_blocking=True)

    @torch.inference_mode()
    def step(self) -> None:
        """Run the network and write the new slot of every cache and ``model_output``, in place. Does not wait.

        Until ``advance``, another step writes the same slot and gives the same result.
        """
        self.model_output.copy_(self._network(self.sample, self.depth_features, self._conditions))

    def advance(self, active: Sequence[bool]) -> None:
        """Count one more frame in each row that held a real one, and upload what the next tick needs. Does not wait."""
        self._window.advance(active)
        self._buffers.upload(self._window)

    def embed_depth(self, depth_latents: Tensor) -> Tensor:
        """Map depth latents, [frames, channels, height, width], to depth features."""
        return self._unet.embed_depth(depth_latents)

    def warm_up(self, row: int, sample: Tensor, depth_features: Tensor) -> Tensor:
        """Run the warm-up frames at a row's denoising step and fill that row's sink in place.

        Args:
            row: whose step and sink.
            sample: [sink, latent channels, height, width].
            depth_features: [sink, depth channels, height, width].

        Returns:
            The model's output, of the sample's shape.
        """
        frames = len(sample)
        attend = WarmUpAttend(self._spec.heads)
        time = {place: tensor[row].expand(frames, -1) for place, tensor in self._time.items()}
        prompt = {
            place: (k[:1].expand(frames, -1, -1), v[:1].expand(frames, -1, -1))
            for place, (k, v) in self._prompt.items()
        }
        model_output = self._unet(sample, depth_features, Conditions(time, prompt, attend))
        for place, pair in attend.new.items():
            for past, new in zip(self.past[place], pair, strict=True):
                past[row, :frames] = new
        return model_output

    def compile(self, *, backend: str = "inductor") -> None:
        """Let torch.compile compile the network, as one graph, at the next step."""
        self._network = torch.compile(self._unet, fullgraph=True, dynamic=False, backend=backend)


def capture(work: Callable[[], None], stream: torch.cuda.Stream) -> Callable[[], None]:
    """Capture work on static buffers into a CUDA graph; return its replay on the stream that is current then.

    The work runs a few times first: it compiles, finds the fastest convolutions, and allocates. Replay only as long as
    the owner of the buffers lives.
    """
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        for _ in range(_TICKS_BEFORE_CAPTURE):
            work()
    torch.cuda.synchronize(stream.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay
