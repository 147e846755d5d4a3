"""A whole stream by PyTorch, at its best: pinned memory, and all but the drawing of noise in one CUDA graph.

It streams what the other backends stream, so ``runtime.stream.Stream`` runs it like them; with the stream's own noise
and in float32 it is what they are checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.benchmarks.torch_networks import TorchNetworks
from live2diff_trt.benchmarks.torch_stages import TorchStages
from live2diff_trt.benchmarks.torch_tick import TorchTick, capture
from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.restyle import StyledWeights
from live2diff_trt.runtime.denoiser import NoiseSource, PhiloxNoise
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image, check_image, empty_frame
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.pipeline import Submitted
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stream_batch import StreamBatch
from live2diff_trt.runtime.stream_rows import StreamRoom

_SLOTS = 3  # one picture on its way up, one being computed, one being taken away


class Slot:
    """One tick's pictures on the host: the one that goes up and the one that comes down. Pinned where a GPU is."""

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.source = torch.zeros(height, width, 3, dtype=torch.uint8, pin_memory=pinned)
        self.picture = torch.zeros_like(self.source, pin_memory=pinned)
        self._done = torch.cuda.Event() if pinned else None

    def finish(self) -> None:
        """Mark the end of the slot's work on the current stream."""
        if self._done is not None:
            self._done.record()

    def wait(self) -> None:
        """Wait until the slot's work is done."""
        if self._done is not None:
            self._done.synchronize()


@dataclass(eq=False)
class PendingPicture:
    """The picture of one tick, copied out of its slot once, when somebody waits for it."""

    slot: Slot
    picture: Image | None = None

    def wait(self) -> Sequence[Image]:
        """Return it once it is complete; the receiver owns it."""
        if self.picture is None:
            self.slot.wait()
            self.picture = self.slot.picture.numpy().copy()
        return [self.picture]


@dataclass(frozen=True, eq=False)
class PendingPictures:
    """Pictures that came out together."""

    pictures: Sequence[Image]

    def wait(self) -> Sequence[Image]:
        """Return them; the receiver owns them."""
        return self.pictures


class TorchPipeline:
    """One stream of pictures of the stream's own size.

    Args:
        networks: on a CUDA device, or on the CPU.
        spec: of the stream.
        tokenizer: of the prompt.

    Attributes:
        guidance: of the kind none, always.
        tick_of_unet: the UNet's rows.
        noise_source: where noise comes from; None: PyTorch draws its own on the device, which takes it less time.
    """

    def __init__(self, networks: TorchNetworks, spec: StreamSpec, tokenizer: PromptTokenizer) -> None:
        self.spec = spec
        self.room = StreamRoom(spec.steps)
        self.guidance = NO_GUIDANCE
        self.tick_of_unet = TorchTick(networks.unet, spec)
        self._text_encoder = networks.text_encoder
        self._tokenizer = tokenizer
        self.noise_source: NoiseSource | None = None
        self._dtype = getattr(torch, spec.dtype)
        self._device = networks.unet.conv_in.weight.device
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._stages = TorchStages(networks, spec)
        self._first_stages = TorchStages(networks, spec)  # of the warm-up, which are never compiled
        self._batch = StreamBatch(spec.steps)
        self._allocate()
        table = make_step_table(spec.step_list, spec.schedule)
        self.tick_of_unet.set_steps(table.timesteps)
        self._constants = [
            torch.from_numpy(values).to(self._device)[:, None, None, None]
            for values in (table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out)
        ]
        self._launch: Callable[[], object] = self.compute
        if self._stream is not None:
            torch.cuda.synchronize(self._device)  # all this was done on another stream

    @property
    def full_ahead(self) -> int:
        """How many frames keep the GPU busy while one more is waited for."""
        return 1

    def _allocate(self) -> None:
        spec, device = self.spec, self._device
        self._slots = [Slot(spec.height, spec.width, device) for _ in range(_SLOTS)]
        self._pending: list[PendingPicture | None] = [None] * _SLOTS
        self._turn = 0
        self._source = torch.zeros(spec.height, spec.width, 3, dtype=torch.uint8, device=device)
        self._picture = torch.zeros_like(self._source)
        self._noise = torch.zeros(spec.steps, *spec.latent_shape, device=device)
        side = spec.depth_size
        self._clean = torch.zeros(spec.sink, *spec.latent_shape, dtype=self._dtype, device=device)
        self._depth_maps = torch.zeros(spec.sink, side, side, dtype=self._dtype, device=device)
        self._x0 = torch.zeros(spec.steps, *spec.latent_shape, device=device)

    def compile(self, *, backend: str = "inductor") -> None:
        """Let torch.compile compile all networks at the next tick."""
        self.tick_of_unet.compile(backend=backend)
        self._stages.compile(backend=backend)

    def capture(self) -> None:
        """Capture a tick into a CUDA graph; from here on a tick is its replay. Forgets every frame."""
        self._launch = self.capture_work(self.compute)
        self.reset()

    def capture_work(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture any of this pipeline's work into a CUDA graph; raise MeasurementError where there is no GPU."""
        if self._stream is None:
            raise MeasurementError(f"a tick on {self._device.type} can't be captured", "Time the work itself there")
        return capture(work, self._stream)

    def on_stream(self) -> AbstractContextManager[Any]:
        """Return a context in which what is launched goes to this pipeline's stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    @property
    def cuda_stream(self) -> torch.cuda.Stream | None:
        """The stream that it works on; None on the CPU."""
        return self._stream

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and have not left."""
        return self._batch.in_flight

    def empty_frame(self, height: int, width: int) -> Image:
        """Return a frame in ordinary memory."""
        return empty_frame(height, width)

    @torch.inference_mode()
    def encode_prompt(self, prompt: str) -> Array:
        """Return a prompt's text embeddings, [1, tokens, channels]; waits for the device."""
        with self.on_stream():
            ids = torch.from_numpy(self._tokenizer.tokenize(prompt)[None]).to(self._device)
            (embeddings,) = self._text_encoder((ids,))
            return embeddings.cpu().numpy()

    def set_text_embeddings(self, embeddings: Array) -> None:
        """Compute keys and values of text embeddings, [1, tokens, channels]; they act from the next tick on."""
        with self.on_stream():
            self.tick_of_unet.set_prompt(embeddings)

    def set_seed(self, seed: int) -> None:
        """Draw the stream's own noise of this seed, from the next tick on; ``noise_source`` is changed."""
        self.noise_source = PhiloxNoise(seed, self.spec.latent_shape)

    def prepare_rows(self, step_list: tuple[int, ...], kind: GuidanceKind) -> None:
        """Raise ControlError: what is measured here has the steps that it was made for."""
        raise ControlError("PyTorch's rows are measured at one step list", "Make another TorchPipeline for other steps")

    def change_rows(self, step_list: tuple[int, ...], guidance: Guidance) -> None:
        """Raise ControlError, as ``prepare_rows`` does."""
        self.prepare_rows(step_list, guidance.kind)

    def prepare_style(self, weights: StyledWeights, check: Callable[[], None]) -> Callable[[], None]:
        """Raise ControlError: what is measured here has the weights that it was made with."""
        raise ControlError("PyTorch's rows are measured with one set of weights", "Make another TorchPipeline")

    def set_guidance(self, guidance: Guidance) -> None:
        """Take a guidance, which is of the kind none and changes nothing."""
        self.guidance = guidance

    @torch.inference_mode()
    def gather(self, frame: int, image: Any) -> None:
        """Encode one of the first frames and estimate its depth."""
        with self.on_stream():
            slot = self._take_slot()
            self._send(slot, image)
            picture = self._first_stages.see(self._source)
            self._clean[frame] = self._first_stages.encode(picture)[0]
            self._depth_maps[frame] = self._first_stages.estimate_depth(picture)[0]
            slot.finish()

    @torch.inference_mode()
    def warm_up(self, frames: int) -> PendingPictures:
        """Denoise the gathered frames together and fill every row's sink; a short clip repeats its last one."""
        with self.on_stream():
            for kept in (self._clean, self._depth_maps):
                kept[frames:] = kept[frames - 1 : frames].clone()
            depth_latents = self._first_stages.encode(self._first_stages.show_depth(self._depth_maps))
            depth_features = self.tick_of_unet.embed_depth(depth_latents)
            clean = self._clean.float()
            for row in range(self.spec.steps):
                sample = self._noised(clean, self._draw_warm_up(row), row).to(self._dtype)
                model_output = self.tick_of_unet.warm_up(row, sample, depth_features)
                clean = self._predict(sample, model_output, slice(row, row + 1))
            pictures = [
                self._first_stages.decode(clean[frame : frame + 1].to(self._dtype))[0] for frame in range(frames)
            ]
            return PendingPictures([picture.cpu().numpy() for picture in pictures])

    @torch.inference_mode()
    def tick(self, frame: int | None, image: Any) -> Submitted:
        """Take one frame, or none while draining, and move every frame one step on. On a GPU, returns at once."""
        with self.on_stream():
            slot = self._take_slot()
            if frame is not None:
                self._send(slot, image)
                self._batch.enter(frame)
            self._draw_noise()
            self._launch()
            self.tick_of_unet.advance(self._batch.active)
            slot.picture.copy_(self._picture, non_blocking=True)
            slot.finish()
            finished = self._batch.advance()
        if finished is None:
            return Submitted(None, PendingPictures([]))
        pending = self._pending[self._turn] = PendingPicture(slot)
        return Submitted(finished, pending)

    def reset(self) -> None:
        """Forget every frame."""
        with self.on_stream():
            self._batch.reset()
            self.tick_of_unet.reset()

    def close(self) -> None:
        """Let go of everything; closing twice is harmless."""
        if self._stream is not None:
            self._stream.synchronize()
        self.__dict__.clear()
        self._stream = None

    @torch.inference_mode()
    def compute(self) -> None:
        """Compute one tick on the buffers as they are: all that a graph holds."""
        self.enter()
        self.denoise()
        self.decode()

    @torch.inference_mode()
    def enter(self) -> None:
        """Encode the picture and its depth, as one batch, and put its noised latent and depth features into row 0."""
        tick = self.tick_of_unet
        picture = self._stages.see(self._source)
        depth_picture = self._stages.show_depth(self._stages.estimate_depth(picture))
        latent, depth_latent = self._stages.encode(torch.cat([picture, depth_picture])).split(1)
        tick.sample[:1] = self._noised(latent.float(), self._noise[:1], 0).to(self._dtype)
        tick.depth_features[:1] = tick.embed_depth(depth_latent)

    @torch.inference_mode()
    def denoise(self) -> None:
        """Run all rows once, predict their clean latents, and move each frame one row on."""
        tick, last = self.tick_of_unet, self.spec.steps - 1
        tick.step()
        self._x0.copy_(self._predict(tick.sample, tick.model_output, slice(None)))
        alpha, sigma = self._constants[:2]
        tick.sample[1:] = (alpha[1:] * self._x0[:last] + sigma[1:] * self._noise[1:]).to(self._dtype)
        tick.depth_features[1:] = tick.depth_features[:last].clone()

    @torch.inference_mode()
    def decode(self) -> None:
        """Decode the last row's clean latent."""
        self._picture.copy_(self._stages.decode(self._x0[-1:].to(self._dtype))[0])

    def _noised(self, clean: Tensor, noise: Tensor, row: int) -> Tensor:
        alpha, sigma = self._constants[:2]
        return alpha[row] * clean + sigma[row] * noise

    def _predict(self, sample: Tensor, model_output: Tensor, rows: slice) -> Tensor:
        """Predict clean latents (LCM, arXiv 2310.04378, eq. 9), float32."""
        alpha, sigma, c_skip, c_out = (values[rows] for values in self._constants)
        predicted = (sample.float() - sigma * model_output.float()) / alpha
        return c_out * predicted + c_skip * sample.float()

    def _draw_warm_up(self, row: int) -> Tensor:
        if self.noise_source is None:
            return torch.randn_like(self._clean, dtype=torch.float32)
        draws = [self.noise_source.warm_up(frame, row) for frame in range(self.spec.sink)]
        return torch.from_numpy(np.stack(draws)).to(self._device)

    def _draw_noise(self) -> None:
        """Draw what each row's next frame is noised with."""
        source, frames = self.noise_source, self._batch.frames
        if source is None:
            self._noise.normal_()
            return
        for row, frame in enumerate([frames[0], *frames[:-1]]):
            if frame is not None:
                draw = source.enter(frame) if row == 0 else source.renoise(frame, row)
                self._noise[row].copy_(torch.from_numpy(draw))

    def _take_slot(self) -> Slot:
        self._turn = (self._turn + 1) % _SLOTS
        pending = self._pending[self._turn]
        if pending is not None:
            pending.wait()
        self._pending[self._turn] = None
        slot = self._slots[self._turn]
        slot.wait()
        return slot

    def _send(self, slot: Slot, image: Any) -> None:
        found = check_image(image)
        if found.shape != self._source.shape:
            wanted = f"{self.spec.width}x{self.spec.height}"
            raise MeasurementError(
                f"a picture is {found.shape[1]}x{found.shape[0]}, PyTorch's rows take {wanted}",
                "Stream pictures of the stream's own size",
            )
        slot.source.numpy()[:] = found
        self._source.copy_(slot.source, non_blocking=True)
