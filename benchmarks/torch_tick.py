"""The opponent at its best: our network run by PyTorch, everything resident on the device.

The kv-caches never move: a tick writes its slot in place, then attends over the cache. What changes from tick to tick
is a few integers in device buffers, so that a tick can be captured into a CUDA graph, compiled or not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.weights_source import RandomWeights
from live2diff_trt.model.temporal_attention import KeyValue, PositionTables, TemporalAttend
from live2diff_trt.model.unet import CausalUNet, Conditions
from live2diff_trt.runtime.kv_ring import Array, KeyValues
from live2diff_trt.runtime.kv_window import KvWindow

AttendName = Literal["products", "sdpa"]
_TICKS_BEFORE_CAPTURE = 3
_MOST_HEADS = 65535
"""The memory-efficient kernel of PyTorch launches one block in y a head; CUDA allows so many."""


def build_reference_unet(preset: Preset, seed: int, dtype: torch.dtype, device: torch.device) -> CausalUNet:
    """Return the UNet whose weights an export with ``--random-weights`` of that seed and dtype puts in its bundle."""
    return RandomWeights(seed).unet(preset, dtype).to(device)


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


class _RingAttend(ABC):
    """Writes a temporal attention's new slot into its cache, in place, then attends over the whole cache.

    Equal to ``StreamingAttend`` and a ring that is written after it, for rows that all hold a real frame.
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
        return self._attend(q + tables.q[window.position].unsqueeze(1), past_k, past_v, tables)

    @abstractmethod
    def _attend(self, q: Tensor, past_k: Tensor, past_v: Tensor, tables: PositionTables) -> Tensor:
        """Attend over the caches, in which the row's own frame is by now; q has its position already."""

    def _by_head(self, tensor: Tensor) -> Tensor:
        """[…, channels] → […, heads, channels of a head]."""
        return tensor.unflatten(-1, (self._heads, -1))


class ProductsRingAttend(_RingAttend):
    """One query per position: a score is a product and a sum. A compiler fuses these; each cache is then read once."""

    def _attend(self, q: Tensor, past_k: Tensor, past_v: Tensor, tables: PositionTables) -> Tensor:
        # Scores and weights: [rows, window, positions, heads].
        slot_position = self._window.slot_position
        keys = self._by_head(past_k + tables.k[slot_position].unsqueeze(2))
        values = self._by_head(past_v + tables.v[slot_position].unsqueeze(2))
        queries = self._by_head(q * (q.shape[-1] // self._heads) ** -0.5).unsqueeze(1)
        scores = (queries * keys).sum(-1) + self._window.bias[:, :, None, None]
        weights = scores.softmax(dim=1, dtype=torch.float32).to(q.dtype)
        return (weights.unsqueeze(-1) * values).sum(1).flatten(2)


class SdpaRingAttend(_RingAttend):
    """PyTorch's fused attention, one problem per position and head.

    The keys' positions are not added to the keys but to the scores, q · (k + pe) = q · k + q · pe, as part of the mask.
    So the keys are read where they are and once; the values are copied with their positions.
    """

    def _attend(self, q: Tensor, past_k: Tensor, past_v: Tensor, tables: PositionTables) -> Tensor:
        slot_position = self._window.slot_position
        queries = self._by_head(q).transpose(1, 2)  # [rows, heads, positions, channels of a head]
        key_tables = self._by_head(tables.k[slot_position]).permute(0, 2, 3, 1)  # [rows, heads, channels, window]
        position_scores = (queries @ key_tables) * queries.shape[-1] ** -0.5
        mask = (position_scores + self._window.bias[:, None, None, :]).transpose(1, 2).flatten(1, 2)
        out = scaled_dot_product_attention(
            self._by_head(q).flatten(1, 2).unsqueeze(2),
            self._slots_inside(past_k),
            self._slots_inside(past_v + tables.v[slot_position].unsqueeze(2)),
            attn_mask=mask.unsqueeze(2),
        )
        return out.reshape(q.shape)

    def _slots_inside(self, past: Tensor) -> Tensor:
        """[rows, window, positions, channels] → [rows, positions · heads, window, channels of a head], a view."""
        return self._by_head(past).flatten(2, 3).transpose(1, 2)


class _MakeAttend(Protocol):
    def __call__(self, past: Mapping[str, KeyValue], window: WindowBuffers, heads: int) -> TemporalAttend: ...


_ATTENDS: dict[AttendName, _MakeAttend] = {"products": ProductsRingAttend, "sdpa": SdpaRingAttend}


class TorchTick:
    """One tick of all rows on static device buffers; every row holds a real frame.

    Args:
        unet: moved to ``device`` and its convolutions to channels last, in place.
        spec: of the stream; its dtype is that of every buffer, and must be that of the weights.
        device: a CUDA device, or the CPU, where tests run. On CUDA, cuDNN is told to search for its fastest
            convolutions, for the whole process.
        attend: which form of temporal attention; which one is faster depends on whether it is compiled.
        channels_last: whether convolutions work on channels-last tensors.

    Attributes:
        past: place → (k, v), each [rows, window, positions, channels], the caches.
        model_output: [rows, latent channels, height, width], written by ``step``.

    Raises:
        MeasurementError: the weights have another dtype, or the size is too large for that form of attention.
    """

    def __init__(
        self,
        unet: CausalUNet,
        spec: StreamSpec,
        device: torch.device,
        *,
        attend: AttendName = "sdpa",
        channels_last: bool = True,
    ) -> None:
        dtype = getattr(torch, spec.dtype)
        _check(unet, spec, dtype, attend)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._unet: CausalUNet = unet.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]  # torch leaves this keyword out of its annotations
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
        self._sample = zeros(*spec.latent_shape).contiguous(memory_format=memory_format)
        self._depth_features = zeros(*spec.depth_features_shape).contiguous(memory_format=memory_format)
        self.model_output = zeros(*spec.latent_shape)
        self._conditions = Conditions(self._time, self._prompt, _ATTENDS[attend](self.past, self._buffers, spec.heads))
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
        embeddings = torch.from_numpy(text_embeddings).to(self._device, self._sample.dtype)
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
        self._window.reset()
        for _ in range(count):
            self._window.advance([True] * self._spec.steps)
        self._buffers.upload(self._window)

    def past_numpy(self) -> KeyValues:
        """Return a copy of the caches on the host, as a ``KvRing`` has them; waits for the device."""
        return {place: (k.numpy(force=True).copy(), v.numpy(force=True).copy()) for place, (k, v) in self.past.items()}

    def load(self, sample: Array, depth_features: Array) -> None:
        """Copy one tick's inputs to the device: latents and embedded depth, [rows, channels, height, width] each."""
        self._sample.copy_(torch.from_numpy(sample), non_blocking=True)
        self._depth_features.copy_(torch.from_numpy(depth_features), non_blocking=True)

    @torch.inference_mode()
    def step(self) -> None:
        """Run the network and write the new slot of every cache and ``model_output``, in place. Does not wait.

        Until ``advance``, another step writes the same slot and gives the same result.
        """
        self.model_output.copy_(self._network(self._sample, self._depth_features, self._conditions))

    def advance(self) -> None:
        """Count one more frame in every row and upload what the next tick needs. Does not wait."""
        self._window.advance([True] * self._spec.steps)
        self._buffers.upload(self._window)

    def compile(self, *, mode: str | None = None, backend: str = "inductor") -> None:
        """Let torch.compile compile the network, as one graph, at the next step."""
        self._network = torch.compile(self._unet, fullgraph=True, dynamic=False, mode=mode, backend=backend)

    def capture(self) -> Callable[[], None]:
        """Capture a step into a CUDA graph and return its replay, which does what ``step`` does.

        Steps, prompt, inputs and window may change between replays: all buffers stay where they are. Replay only as
        long as this object lives, which owns them.

        Raises:
            MeasurementError: the device is not a GPU.
        """
        if self._device.type != "cuda":
            raise MeasurementError(f"a tick on {self._device.type} can't be captured", "Time step itself there")
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):  # compiles, finds the fastest convolutions, and allocates
            for _ in range(_TICKS_BEFORE_CAPTURE):
                self.step()
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.step()
        return graph.replay


def _check(unet: CausalUNet, spec: StreamSpec, dtype: torch.dtype, attend: AttendName) -> None:
    if unet.conv_in.weight.dtype != dtype:
        raise MeasurementError(
            f"the weights are {unet.conv_in.weight.dtype}, the stream is {spec.dtype}", "Build both with one dtype"
        )
    heads = spec.heads * max(cache.positions for cache in spec.kv_caches)
    if attend == "sdpa" and heads > _MOST_HEADS:
        raise MeasurementError(
            f"{spec.width}x{spec.height} has {heads} pairs of position and head, more than {_MOST_HEADS}",
            "Use attend='products' at this size",
        )
