"""The CUDA kernels' entry points on emulated memory: the launchers are the real ones, they launch the reference.

Every entry point takes what its C++ counterpart takes, in that order: addresses, strides in elements, numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from live2diff_trt.bundle.noise import Purpose, standard_normal
from live2diff_trt.kernels import reference
from live2diff_trt.kernels.group_norm import group_norm_workspace
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.library import ELEMENT_TYPES, entry_points
from live2diff_trt.kernels.tick_parameters import MAXIMUM_STEPS, SINK, TICK_PARAMETERS, WINDOW
from live2diff_trt.kernels.window import SLOT_COPY
from live2diff_trt.runtime.guidance import GuidanceKind
from live2diff_trt.runtime.guided_noise import guided_noise, implied_latent, virtual_noise
from tests.runtime.emulated_device import AddressSpace, Array, EmulatedGpu
from tests.runtime.emulated_streams import EmulatedStream, EmulationError

_KNOWN = {name for names in entry_points().values() for name in names}
_UNTYPED = ("scatter_slots", "scatter_sink", "copy_vectors", "fetch", "deliver")


@dataclass(frozen=True)
class EmulatedLibrary:
    """Stands for the compiled kernels."""

    gpu: EmulatedGpu

    @property
    def device_id(self) -> int:
        """The device's number."""
        return self.gpu.device_id


class EmulatedKernels(Kernels):
    """The launchers, with the launch itself emulated."""

    @classmethod
    def load(cls, device: Any) -> EmulatedKernels:
        """Load nothing."""
        return cls(EmulatedLibrary(device))  # type: ignore[arg-type]

    def launch(
        self,
        stream: Any,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        *arguments: object,
    ) -> None:
        """Enqueue an entry point with exactly these arguments."""
        if kernel not in _KNOWN or 0 in grid or not 1 <= block[0] * block[1] * block[2] <= 1024:
            raise EmulationError(f"{kernel} can't be launched as {grid} blocks of {block} threads")
        if not all(type(argument) is int or isinstance(argument, np.integer | np.float32) for argument in arguments):
            raise EmulationError(f"{kernel} takes addresses and numpy scalars, not {arguments}")
        library: Any = self._library
        name, dtype, number = _parse(kernel)
        launch = _Launch(library.gpu.memory, library.gpu.pinned, dtype, grid, block[0], number)
        entry: Callable[..., None] = getattr(launch, name)
        queue: EmulatedStream = stream
        plain = [argument.item() if isinstance(argument, np.generic) else argument for argument in arguments]
        queue.submit(kernel, lambda: entry(*plain))


def _parse(kernel: str) -> tuple[str, str, int]:
    """Return an entry point's name, its element type, and its number: channels of a head, or bytes of a vector."""
    if kernel in _UNTYPED:
        return kernel, "", 0
    rest = kernel.rpartition("_")
    if rest[2].isdigit():
        name, _, dtype = rest[0].rpartition("_")
        return name, dtype, int(rest[2])
    name, _, dtype = kernel.rpartition("_")
    if dtype not in ELEMENT_TYPES:
        raise EmulationError(f"{kernel} has no element type")
    return name, dtype, 0


@dataclass(frozen=True)
class _Rows:
    """Rows that may lie in chunks."""

    memory: AddressSpace
    address: int
    stride: int
    chunk_rows: int
    shape: tuple[int, ...]
    dtype: str

    def __getitem__(self, row: int) -> Array:
        chunk, inside = divmod(row, self.chunk_rows)
        elements = chunk * self.stride + inside * math.prod(self.shape)
        return self.memory.view(self.address + elements * np.dtype(self.dtype).itemsize, self.shape, self.dtype)

    def gather(self, rows: int) -> Array:
        """Copy the first rows, as float32."""
        return np.stack([self[row] for row in range(rows)]).astype(np.float32)


@dataclass(frozen=True)
class _Launch:
    """One launch; its methods are the entry points without what their names say of types."""

    memory: AddressSpace
    pinned: AddressSpace
    dtype: str
    grid: tuple[int, int, int]
    threads: int
    number: int

    def preprocess(self, parameters: int, image: int, width: int, height: int) -> None:
        tick = self._tick(parameters)
        target = self.memory.view(image, [3, height, width], self.dtype)
        from_width, from_height = int(tick["source_width"]), int(tick["source_height"])
        crop = tuple(int(tick[f"crop_{side}"]) for side in ("left", "top", "width", "height"))
        if crop == (0, 0, 0, 0):  # as while a tick is captured; the sum of no pixels is divided by their weight
            target[:] = np.nan
            return
        if crop != reference.cover_rectangle(from_width, from_height, width, height):
            raise EmulationError(f"{crop} is not what is kept of {from_width}x{from_height}")
        source = self._picture(int(tick["source"]), int(tick["source_row_bytes"]), from_width, from_height)
        target[:] = reference.preprocess(source, width, height)

    def postprocess(self, image: int, pixels: int, width: int, height: int) -> None:
        values = self.memory.view(image, [3, height, width], self.dtype).astype(np.float32)
        black = np.where(np.isnan(values), np.float32(-1), values)
        self.memory.view(pixels, [height, width, 3], "uint8")[:] = reference.postprocess(black)

    def resize_bilinear(
        self, image: int, resized: int, from_width: int, from_height: int, width: int, height: int
    ) -> None:
        planes = self.grid[2]
        source = self.memory.view(image, [planes, from_height, from_width], self.dtype).astype(np.float32)
        target = self.memory.view(resized, [planes, height, width], self.dtype)
        target[:] = reference.resize_bilinear(source, width, height)

    def depth_range(self, depth_maps: int, count: int, depth_range: int) -> None:
        depths = self.memory.view(depth_maps, [count], self.dtype).astype(np.float32)
        self.memory.view(depth_range, [2], "float32")[:] = (
            np.fmin.reduce(depths, initial=np.inf),
            np.fmax.reduce(depths, initial=-np.inf),
        )

    def depth_to_image(
        self, depth_maps: int, depth_range: int, images: int, side: int, width: int, height: int
    ) -> None:
        frames = self.grid[2]
        low, high = self.memory.view(depth_range, [2], "float32")
        depths = self.memory.view(depth_maps, [frames, side, side], self.dtype).astype(np.float32)
        scaled = (depths - low) / (high - low) * 2 - 1 if high > low else np.zeros_like(depths)
        target = self.memory.view(images, [frames, 3, height, width], self.dtype)
        target[:] = reference.resize_bilinear(scaled, width, height)[:, None]

    def enter(self, latent: int, sample: int, parameters: int, step_table: int, elements: int) -> None:
        tick = self._tick(parameters)
        if not tick["rows"][0]["active"]:
            return
        noise = standard_normal((elements,), int(tick["seed"]), int(tick["rows"][0]["frame"]), 0, Purpose.ENTER)
        clean = self.memory.view(latent, [elements], self.dtype)
        self.memory.view(sample, [elements], self.dtype)[:] = self._noised(clean, noise, step_table, 0)

    def enter_warm_up(self, *arguments: int) -> None:
        self._enter_warm_up(self.dtype, *arguments)

    def enter_warm_up_from_x0(self, *arguments: int) -> None:
        self._enter_warm_up("float32", *arguments)

    def _enter_warm_up(
        self,
        clean_dtype: str,
        clean: int,
        clean_stride: int,
        sample: int,
        sample_stride: int,
        chunk_rows: int,
        parameters: int,
        step_table: int,
        row: int,
        elements: int,
    ) -> None:
        seed = int(self._tick(parameters)["seed"])
        source = _Rows(self.memory, clean, clean_stride, chunk_rows, (elements,), clean_dtype)
        target = self._rows(sample, sample_stride, chunk_rows, elements)
        for frame in range(self.grid[1]):
            noise = standard_normal((elements,), seed, frame, row, Purpose.WARM_UP)
            target[frame][:] = self._noised(source[frame], noise, step_table, row)

    def lcm_step(self, *arguments: int) -> None:
        without_origins = [*arguments[:6], 0, 0, *arguments[6:]]
        self._lcm_step("none", *without_origins)

    def lcm_step_self(self, *arguments: int) -> None:
        self._lcm_step("self", *arguments)

    def lcm_step_full(self, *arguments: int) -> None:
        without_origins = [*arguments[:6], 0, 0, *arguments[6:]]
        self._lcm_step("full", *without_origins)

    def lcm_step_initialize(self, *arguments: int) -> None:
        self._lcm_step("initialize", *arguments)

    def _lcm_step(
        self,
        kind: GuidanceKind,
        sample: int,
        sample_stride: int,
        model_output: int,
        model_output_stride: int,
        x0: int,
        x0_stride: int,
        origins: int,
        origins_stride: int,
        chunk_rows: int,
        finished: int,
        parameters: int,
        step_table: int,
        rows: int,
        elements: int,
    ) -> None:
        tick = self._tick(parameters)
        samples = self._rows(sample, sample_stride, chunk_rows, elements)
        outputs = self._rows(model_output, model_output_stride, chunk_rows, elements)
        clean = _Rows(self.memory, x0, x0_stride, chunk_rows, (elements,), "float32")
        looked_back_at = self._rows(origins, origins_stride, chunk_rows, elements)
        for row in reversed(range(rows)):
            output, origin = outputs[row], looked_back_at[row] if origins else None
            asked = kind == "full" or (kind == "initialize" and row == 0)
            if kind != "none":
                negative = outputs[rows + row] if asked else None
                output = self._guided(samples[row], output, negative, origin, parameters, step_table, row)
            clean[row][:] = self._predicted(samples[row], output, step_table, row)
            if row == rows - 1:
                self.memory.view(finished, [elements], self.dtype)[:] = clean[row]
            elif tick["rows"][row]["active"]:
                frame = int(tick["rows"][row]["frame"])
                noise = standard_normal((elements,), int(tick["seed"]), frame, row + 1, Purpose.RENOISE)
                samples[row + 1][:] = self._noised(clean[row], noise, step_table, row + 1)

    def lcm_step_warm_up(self, *arguments: int) -> None:
        without_guidance = [*arguments[:8], 0, 0, 0, 0, arguments[8], 0, *arguments[9:]]
        self._lcm_step_warm_up(*without_guidance)

    def lcm_step_warm_up_self(self, *arguments: int) -> None:
        without_negative = [*arguments[:8], 0, 0, *arguments[8:]]
        self._lcm_step_warm_up(*without_negative)

    def lcm_step_warm_up_full(self, *arguments: int) -> None:
        without_origins = [*arguments[:10], 0, 0, *arguments[10:]]
        self._lcm_step_warm_up(*without_origins)

    def lcm_step_warm_up_initialize(self, *arguments: int) -> None:
        self._lcm_step_warm_up(*arguments)

    def _lcm_step_warm_up(
        self,
        sample: int,
        sample_stride: int,
        model_output: int,
        model_output_stride: int,
        x0: int,
        x0_stride: int,
        finished: int,
        finished_stride: int,
        negative_output: int,
        negative_output_stride: int,
        origins: int,
        origins_stride: int,
        chunk_rows: int,
        parameters: int,
        step_table: int,
        row: int,
        elements: int,
    ) -> None:
        samples = self._rows(sample, sample_stride, chunk_rows, elements)
        outputs = self._rows(model_output, model_output_stride, chunk_rows, elements)
        clean = _Rows(self.memory, x0, x0_stride, chunk_rows, (elements,), "float32")
        targets = self._rows(finished, finished_stride, chunk_rows, elements)
        looked_back_at = self._rows(origins, origins_stride, chunk_rows, elements)
        negatives = self._rows(negative_output, negative_output_stride, chunk_rows, elements)
        for frame in range(self.grid[1]):
            output = outputs[frame]
            if negative_output or origins:
                negative = negatives[frame] if negative_output else None
                origin = looked_back_at[frame] if origins else None
                output = self._guided(samples[frame], output, negative, origin, parameters, step_table, row)
            clean[frame][:] = self._predicted(samples[frame], output, step_table, row)
            targets[frame][:] = clean[frame]

    def streaming_attention(self, *arguments: int) -> None:
        *tensors, past_k_rows, past_v_rows, parameters, positions, heads = arguments
        rows = self._tick(parameters)["rows"][: self.grid[1]]
        count, frame = len(rows), (positions, heads * self.number)
        q, k, v, out, tables = self._attention_tensors(tensors, frame)
        past_k, past_v = (self._ring_rows(table, count, frame) for table in (past_k_rows, past_v_rows))
        visible = rows["visible"] != 0

        def seen(past: list[Array]) -> Array:
            values = np.stack(past).astype(np.float32)
            return np.where(visible[:, :, None, None], values, np.float32(0))  # what is hidden is not read

        result = reference.streaming_attention(
            q.gather(count),
            k.gather(count),
            v.gather(count),
            seen(past_k),
            seen(past_v),
            tables,
            rows["position"],
            rows["past_position"],
            np.where(visible, np.float32(0), np.float32(-np.inf)),
            heads,
        )
        for row in range(count):
            out[row][:] = result[row]
            if rows["active"][row]:
                past_k[row][rows["write_slot"][row]] = k[row]
                past_v[row][rows["write_slot"][row]] = v[row]

    def warm_up_attention(self, *arguments: int) -> None:
        *tensors, past_k_rows, past_v_rows, row, positions, heads = arguments
        frame = (positions, heads * self.number)
        q, k, v, out, tables = self._attention_tensors(tensors, frame)
        past_k, past_v = (self._ring_rows(table, row + 1, frame)[row] for table in (past_k_rows, past_v_rows))
        result = reference.warm_up_attention(q.gather(SINK), k.gather(SINK), v.gather(SINK), tables, heads)
        for index in range(SINK):
            out[index][:] = result[index]
            past_k[index], past_v[index] = k[index], v[index]

    def spatial_attention(self, *arguments: int) -> None:
        *tensors, chunk_rows, key_rows, positions, tokens, heads = arguments
        channels = heads * self.number
        q, k, v, out = (
            self._rows(*tensors[at : at + 2], chunk_rows, count, channels)
            for at, count in ((0, positions), (2, tokens), (4, tokens), (6, positions))
        )
        result = reference.spatial_attention(q.gather(self.grid[2]), k.gather(key_rows), v.gather(key_rows), heads)
        for row in range(self.grid[2]):
            out[row][:] = result[row]

    def group_statistics(
        self,
        x: int,
        x_stride: int,
        row_bias: int,
        row_bias_stride: int,
        chunk_rows: int,
        row_bias_rows: int,
        statistics: int,
        positions: int,
        channels: int,
        groups: int,
        chunk_positions: int,
    ) -> None:
        if not (self.grid[0] - 1) * chunk_positions < positions <= self.grid[0] * chunk_positions:
            raise EmulationError(f"{self.grid[0]} chunks of {chunk_positions} are not {positions} positions")
        self.memory.view(x, [1], self.dtype)
        # What the next launch computes anew; here it only has to be there.
        self.memory.view(statistics, group_norm_workspace(self.grid[1], groups), "float32")[:] = positions

    def group_normalise(
        self,
        x: int,
        x_stride: int,
        row_bias: int,
        row_bias_stride: int,
        out: int,
        out_stride: int,
        chunk_rows: int,
        row_bias_rows: int,
        statistics: int,
        scale: int,
        bias: int,
        positions: int,
        channels: int,
        groups: int,
        chunk_positions: int,
        epsilon: float,
        silu: int,
    ) -> None:
        written = self.memory.view(statistics, group_norm_workspace(self.grid[1], groups), "float32")
        if not (written == positions).all():
            raise EmulationError("the statistics of group_normalise are another launch's")
        rows = x, x_stride, row_bias, row_bias_stride, out, out_stride, chunk_rows, row_bias_rows
        self._group_norm(*rows, scale, bias, positions, channels, groups, epsilon, silu)

    def group_norm_once(self, *arguments: Any) -> None:
        positions, channels, groups, lanes = arguments[10:14]
        vectors, rest = divmod(channels // groups * np.dtype(self.dtype).itemsize, self.number)
        kept = -(-positions // lanes) * self.number
        if rest or self.grid[0] != groups or lanes * vectors > self.threads or self.threads % 32 or kept > 128:
            raise EmulationError(f"{self.threads} threads at {lanes} positions can't keep a group of {positions}")
        self._group_norm(*arguments[:13], *arguments[14:])

    def _group_norm(
        self,
        x: int,
        x_stride: int,
        row_bias: int,
        row_bias_stride: int,
        out: int,
        out_stride: int,
        chunk_rows: int,
        row_bias_rows: int,
        scale: int,
        bias: int,
        positions: int,
        channels: int,
        groups: int,
        epsilon: float,
        silu: int,
    ) -> None:
        rows = self.grid[1]
        source = self._rows(x, x_stride, chunk_rows, positions, channels)
        target = self._rows(out, out_stride, chunk_rows, positions, channels)
        added = self._rows(row_bias, row_bias_stride, chunk_rows, channels).gather(row_bias_rows) if row_bias else None
        weight, shift = (self.memory.view(one, [channels], self.dtype).astype(np.float32) for one in (scale, bias))
        result = reference.group_norm(source.gather(rows), weight, shift, added, groups, epsilon, bool(silu))
        for row in range(rows):
            target[row][:] = result[row]

    def gated_gelu(
        self, x: int, x_stride: int, out: int, out_stride: int, chunk_rows: int, positions: int, width: int
    ) -> None:
        source = self._rows(x, x_stride, chunk_rows, positions, 2 * width)
        target = self._rows(out, out_stride, chunk_rows, positions, width)
        result = reference.gated_gelu(source.gather(self.grid[1]))
        for row in range(self.grid[1]):
            target[row][:] = result[row]

    def window_inputs(
        self,
        position: int,
        position_stride: int,
        past_position: int,
        past_position_stride: int,
        past_bias: int,
        past_bias_stride: int,
        chunk_rows: int,
        parameters: int,
    ) -> None:
        positions = _Rows(self.memory, position, position_stride, chunk_rows, (1,), "int32")
        slots = _Rows(self.memory, past_position, past_position_stride, chunk_rows, (WINDOW,), "int32")
        bias = _Rows(self.memory, past_bias, past_bias_stride, chunk_rows, (WINDOW,), self.dtype)
        tick = self._tick(parameters)
        for row in range(self.threads // WINDOW):
            here = tick["rows"][row]
            positions[row][:] = here["position"]
            slots[row][:] = here["past_position"]
            bias[row][:] = np.where(here["visible"] != 0, 0.0, -np.inf)

    def scatter_slots(self, copies: int, parameters: int) -> None:
        rows = self._tick(parameters)["rows"]
        for row in range(self.grid[1]):
            if rows[row]["active"]:
                self._copy_slots(copies, source_row=row, ring_row=row, slot=int(rows[row]["write_slot"]))

    def scatter_sink(self, copies: int, row: int) -> None:
        for frame in range(self.grid[1]):
            self._copy_slots(copies, source_row=frame, ring_row=row, slot=frame)

    def copy_vectors(self, source: int, target: int, count: int) -> None:
        self.memory.view(target, [16 * count], "uint8")[:] = self.memory.view(source, [16 * count], "uint8")

    def fetch(self, record: int, parameters: int, pixels: int, picture: int, size: int) -> None:
        self._copy_bytes(record, parameters, TICK_PARAMETERS.itemsize)
        self._copy_bytes(pixels, picture, size)

    def deliver(self, picture: int, pixels: int, size: int) -> None:
        self._copy_bytes(picture, pixels, size)

    def _copy_bytes(self, source: int, target: int, size: int) -> None:
        if size:
            self._reachable(target, size)[:] = self._reachable(source, size)

    def _reachable(self, address: int, size: int) -> Array:
        """Return bytes of the device or of the host's page-locked memory: no address is in both."""
        space = self.pinned if self.pinned.holds(address) else self.memory
        return space.view(address, [size], "uint8")

    def _copy_slots(self, copies: int, *, source_row: int, ring_row: int, slot: int) -> None:
        records = self.memory.view(copies, [self.grid[2] * SLOT_COPY.itemsize], "uint8").view(SLOT_COPY)
        for record in records:
            chunk, inside = divmod(source_row, int(record["chunk_rows"]))
            size = int(record["row_bytes"])
            start = int(record["source"]) + chunk * int(record["chunk_bytes"]) + inside * size
            ring = int(self.memory.view(int(record["ring_rows"]) + 8 * ring_row, [1], "uint64")[0])
            target = self.memory.view(ring + slot * size, [size], "uint8")
            target[:] = self.memory.view(start, [size], "uint8")

    def _tick(self, parameters: int) -> np.void:
        raw = self.memory.view(parameters, [TICK_PARAMETERS.itemsize], "uint8")
        record: np.void = raw.copy().view(TICK_PARAMETERS)[0]
        return record

    def _steps(self, step_table: int) -> Array:
        return self.memory.view(step_table, [4, MAXIMUM_STEPS], "float32")

    def _noised(self, clean: Array, noise: Array, step_table: int, step: int) -> Array:
        sqrt_alpha, sqrt_one_minus_alpha, _, _ = self._steps(step_table)[:, step]
        return reference.enter(clean.astype(np.float32), noise, sqrt_alpha, sqrt_one_minus_alpha)

    def _guided(
        self,
        sample: Array,
        model_output: Array,
        negative_output: Array | None,
        origin: Array | None,
        parameters: int,
        step_table: int,
        step: int,
    ) -> Array:
        """Guide one row, float32 [elements]; an origin is written where there is a negative output, else read."""
        tick = self._tick(parameters)
        levels = [values.reshape(1) for values in self._steps(step_table)[:2, step]]
        noised, positive = (one.astype(np.float32).reshape(1, 1, 1, -1) for one in (sample, model_output))
        if negative_output is not None:
            negative = negative_output.astype(np.float32).reshape(noised.shape)
            if origin is not None:
                origin[:] = implied_latent(noised, negative, *levels).reshape(-1)
        else:
            assert origin is not None
            negative = virtual_noise(noised, origin.astype(np.float32).reshape(noised.shape), *levels)
        scale, delta = float(tick["guidance_scale"]), float(tick["guidance_delta"])
        return guided_noise(positive, negative, scale, delta).reshape(-1)

    def _predicted(self, sample: Array, model_output: Array, step_table: int, step: int) -> Array:
        constants = (values.reshape(1) for values in self._steps(step_table)[:, step])
        shape = (1, 1, 1, -1)
        tensors = (tensor.astype(np.float32).reshape(shape) for tensor in (sample, model_output))
        return reference.lcm_step(*tensors, *constants).reshape(-1)

    def _rows(self, address: int, stride: int, chunk_rows: int, *shape: int) -> _Rows:
        return _Rows(self.memory, address, stride, chunk_rows, shape, self.dtype)

    def _ring_rows(self, table: int, rows: int, frame: tuple[int, int]) -> list[Array]:
        addresses = self.memory.view(table, [rows], "uint64")
        return [self.memory.view(int(address), (WINDOW, *frame), self.dtype) for address in addresses]

    def _attention_tensors(self, arguments: Sequence[int], frame: tuple[int, int]) -> tuple[Any, ...]:
        """Return q, k, v and out as rows, and the three tables."""
        chunk_rows = arguments[8]
        rows = [self._rows(*arguments[at : at + 2], chunk_rows, *frame) for at in (0, 2, 4, 6)]
        tables = tuple(
            self.memory.view(table, (WINDOW, frame[1]), self.dtype).astype(np.float32) for table in arguments[9:]
        )
        return *rows, tables

    def _picture(self, address: int, row_bytes: int, width: int, height: int) -> Array:
        raw = self.memory.view(address, [(height - 1) * row_bytes + 3 * width], "uint8")
        picture: Array = np.lib.stride_tricks.as_strided(raw, (height, width, 3), (row_bytes, 3, 1))
        return picture
