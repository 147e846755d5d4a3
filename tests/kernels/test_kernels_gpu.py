"""Every kernel on a GPU against numpy in float64. Run with ``pytest -m gpu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from live2diff_trt.bundle.noise import Purpose, standard_normal
from live2diff_trt.kernels import reference
from live2diff_trt.kernels.tick_parameters import MAXIMUM_ROWS, MAXIMUM_STEPS, SINK, TICK_PARAMETERS, WINDOW
from live2diff_trt.kernels.window import NewSlots, slot_copies
from live2diff_trt.runtime.guidance import GuidanceKind
from live2diff_trt.runtime.guided_noise import guided_noise, implied_latent, virtual_noise

if TYPE_CHECKING:
    from tests.kernels.device import Gpu

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
DTYPES = ("float16", "float32")
SEED = 0xFEDC_BA98_7654_3210
# Arithmetic is float32 everywhere; a float16 result is that, rounded once.
TOLERANCES: dict[str, Any] = {"float16": {"rtol": 6e-4, "atol": 1e-5}, "float32": {"rtol": 5e-6, "atol": 5e-6}}


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    from tests.kernels.device import open_gpu

    with open_gpu() as opened:
        yield opened


def assert_close(actual: Array, expected: Array, dtype: str) -> None:
    np.testing.assert_allclose(actual, expected, **TOLERANCES[dtype])


def random_normal(shape: tuple[int, ...], dtype: str, *seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parameters_of_rows(rows: int, seed: int = 0) -> Array:
    """Parameters with random windows: row 0 sees nothing, row 1 all but the slot it writes; row 1 is not active."""
    generator = np.random.default_rng(seed)
    record = np.zeros((), TICK_PARAMETERS)
    record["seed"] = SEED
    for row in range(rows):
        here = record["rows"][row]
        here["active"] = row != 1
        here["frame"] = 1000 * row + 7
        here["position"] = generator.integers(WINDOW)
        here["write_slot"] = generator.integers(SINK, WINDOW)
        here["past_position"] = generator.permutation(WINDOW)
        visible = np.zeros(WINDOW, np.int32) if row == 0 else generator.integers(0, 2, WINDOW)
        if row == 1:
            visible[:] = 1
        visible[here["write_slot"]] = 0
        here["visible"] = visible
    return record


# Attention. Heads of 4 and 8 channels are the tiny networks'; 40, 80 and 160 SD 1.5's.

ATTENTIONS = [  # positions, heads, head channels, rows, rows in a chunk
    (1, 2, 4, 1, 0),
    (4, 3, 8, 3, 2),
    (1, 8, 8, 2, 1),
    (7, 8, 40, 3, 2),
    (5, 8, 80, 3, 1),
    (3, 8, 160, 8, 2),
    (13, 1, 40, 2, 0),
    (4096, 8, 40, 2, 2),
    (1024, 8, 80, 2, 1),
    (256, 8, 160, 2, 0),
    (5, 8, 40, MAXIMUM_ROWS, 3),
]


class AttentionCase:
    """Random tensors of one attention on the device; hidden slots are not numbers."""

    def __init__(
        self, gpu: Gpu, dtype: str, positions: int, heads: int, head_channels: int, rows: int, chunk_rows: int
    ) -> None:
        channels = heads * head_channels
        seed = (positions, heads, head_channels, rows)
        self.heads = heads
        self.q, self.k, self.v = (random_normal((rows, positions, channels), dtype, index, *seed) for index in range(3))
        self.tables = tuple(random_normal((WINDOW, channels), dtype, index, *seed) for index in range(3, 6))
        self.record = parameters_of_rows(rows, positions)
        visible = self.record["rows"]["visible"][:rows] != 0
        self.past = [random_normal((rows, WINDOW, positions, channels), dtype, index, *seed) for index in range(6, 8)]
        for past in self.past:
            past[~visible] = np.nan
        self.on_device = {
            name: gpu.upload(values, chunk_rows) for name, values in (("q", self.q), ("k", self.k), ("v", self.v))
        }
        self.out = gpu.poisoned(self.q.shape, dtype, chunk_rows)
        # The rows of the ring lie in another order than those of the batch.
        self.rings = [gpu.upload(past[::-1]) for past in self.past]
        addresses = [[ring.row(rows - 1 - row).address for row in range(rows)] for ring in self.rings]
        self.shared: dict[str, Any] = {
            **self.on_device,
            "out": self.out,
            "tables": tuple(gpu.upload(table) for table in self.tables),
            "past_k_rows": gpu.upload(np.array(addresses[0], np.uint64)),
            "past_v_rows": gpu.upload(np.array(addresses[1], np.uint64)),
            "heads": heads,
        }

    def some_positions(self) -> Array:
        """Which positions are compared: all of a few, else 40 of them, the first and the last among them."""
        return np.unique(np.linspace(0, self.q.shape[1] - 1, 40).astype(int))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", ATTENTIONS, ids=str)
def test_streaming_attention(gpu: Gpu, dtype: str, sizes: tuple[int, ...]) -> None:
    case = AttentionCase(gpu, dtype, *sizes)
    gpu.kernels.streaming_attention(gpu.stream, **case.shared, parameters=gpu.upload_bytes(case.record))

    rows, some = len(case.q), case.some_positions()
    windows = case.record["rows"][:rows]
    visible = windows["visible"] != 0
    q, k, v = (tensor[:, some].astype(np.float64) for tensor in (case.q, case.k, case.v))
    past_k, past_v = (np.nan_to_num(past[:, :, some].astype(np.float64)) for past in case.past)
    pe_q, pe_k, pe_v = (table.astype(np.float64) for table in case.tables)
    expected = reference.streaming_attention(
        q, k, v, past_k, past_v, (pe_q, pe_k, pe_v), windows["position"], windows["past_position"],
        np.where(visible, 0.0, -np.inf), case.heads,
    )  # fmt: skip
    assert_close(gpu.download(case.out)[:, some], expected, dtype)
    assert gpu.outside_is_untouched(case.out)
    for ring, past, new in zip(case.rings, case.past, (case.k, case.v), strict=True):
        for row in np.flatnonzero(windows["active"]):
            past[row, windows["write_slot"][row]] = new[row]
        assert gpu.download(ring).tobytes() == past[::-1].tobytes()
        assert gpu.outside_is_untouched(ring)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(*size[:3], SINK, size[4] or 3) for size in ATTENTIONS[:8]], ids=str)
def test_warm_up_attention(gpu: Gpu, dtype: str, sizes: tuple[int, ...]) -> None:
    case = AttentionCase(gpu, dtype, *sizes)
    gpu.kernels.warm_up_attention(gpu.stream, **case.shared, row=2)

    some = case.some_positions()
    q, k, v = (tensor[:, some].astype(np.float64) for tensor in (case.q, case.k, case.v))
    pe_q, pe_k, pe_v = (table.astype(np.float64) for table in case.tables)
    expected = reference.warm_up_attention(q, k, v, (pe_q, pe_k, pe_v), case.heads)
    assert_close(gpu.download(case.out)[:, some], expected, dtype)
    assert gpu.outside_is_untouched(case.out)
    for ring, past, new in zip(case.rings, case.past, (case.k, case.v), strict=True):
        past[2, :SINK] = new
        assert gpu.download(ring).tobytes() == past[::-1].tobytes()


def test_attention_is_the_same_every_time(gpu: Gpu) -> None:
    case = AttentionCase(gpu, "float16", 64, 8, 40, 2, 1)
    parameters = gpu.upload_bytes(case.record)
    gpu.kernels.streaming_attention(gpu.stream, **case.shared, parameters=parameters)
    first = gpu.download(case.out)
    gpu.kernels.streaming_attention(gpu.stream, **case.shared, parameters=parameters)
    assert gpu.download(case.out).tobytes() == first.tobytes()


# Pictures

PICTURES = [  # source width and height, target width and height
    (24, 16, 24, 16),
    (40, 16, 24, 16),
    (24, 30, 24, 16),
    (7, 5, 24, 16),
    (100, 90, 24, 16),
    (1, 1, 9, 17),
    (37, 16, 37, 40),
    (640, 360, 512, 512),
    (512, 512, 512, 512),
    (1920, 1080, 512, 512),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", PICTURES, ids=str)
def test_preprocess(gpu: Gpu, dtype: str, sizes: tuple[int, int, int, int]) -> None:
    from_width, from_height, width, height = sizes
    padding = 5  # bytes after each line, which are not the picture's
    lines = np.random.default_rng(sizes).integers(0, 256, (from_height, from_width * 3 + padding), np.uint8)
    record = np.zeros((), TICK_PARAMETERS)
    record["source"] = gpu.upload(lines).address
    record["source_row_bytes"] = lines.shape[1]
    record["source_width"], record["source_height"] = from_width, from_height
    cover = reference.cover_rectangle(from_width, from_height, width, height)
    record["crop_left"], record["crop_top"], record["crop_width"], record["crop_height"] = cover
    image = gpu.poisoned((3, height, width), dtype)
    gpu.kernels.preprocess(gpu.stream, parameters=gpu.upload_bytes(record), image=image)

    picture = np.ascontiguousarray(lines[:, : from_width * 3]).reshape(from_height, from_width, 3)
    expected = reference.preprocess(picture, width, height)
    tolerance = {"float16": 5e-4, "float32": 2e-6}[dtype]
    np.testing.assert_allclose(gpu.download(image), expected, rtol=tolerance, atol=tolerance)
    if (from_width, from_height) == (width, height):
        np.testing.assert_array_equal(gpu.download(image), expected.astype(dtype))
    assert gpu.outside_is_untouched(image)


@pytest.mark.parametrize("dtype", DTYPES)
def test_postprocess(gpu: Gpu, dtype: str) -> None:
    image = (random_normal((3, 33, 50), dtype, 1) * 0.8).astype(dtype)
    ties = (np.arange(50) + 0.5) / 255 * 2 - 1  # halfway between two bytes
    image[0, 0] = ties
    image[1, 0, :4] = np.inf, -np.inf, 1, -1
    pixels = gpu.poisoned((33, 50, 3), "uint8")
    gpu.kernels.postprocess(gpu.stream, image=gpu.upload(image), pixels=pixels)
    np.testing.assert_array_equal(gpu.download(pixels), reference.postprocess(image))
    assert gpu.outside_is_untouched(pixels)


def test_what_is_not_a_number_becomes_black(gpu: Gpu) -> None:
    pixels = gpu.poisoned((2, 8, 3), "uint8")
    gpu.kernels.postprocess(gpu.stream, image=gpu.upload(np.full((3, 2, 8), np.nan, np.float16)), pixels=pixels)
    assert not gpu.download(pixels).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(24, 16, 32, 32), (16, 16, 16, 16), (40, 64, 9, 9), (512, 512, 384, 384)], ids=str)
def test_resize_bilinear(gpu: Gpu, dtype: str, sizes: tuple[int, int, int, int]) -> None:
    from_width, from_height, width, height = sizes
    image = random_normal((3, from_height, from_width), dtype, *sizes)
    resized = gpu.poisoned((3, height, width), dtype)
    gpu.kernels.resize_bilinear(gpu.stream, image=gpu.upload(image), resized=resized)
    expected = reference.resize_bilinear(image.astype(np.float64), width, height)
    assert_close(gpu.download(resized), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 384, 512, 512), (8, 32, 24, 40), (3, 7, 8, 8), (1, 1, 8, 8)], ids=str)
def test_depth_becomes_pictures(gpu: Gpu, dtype: str, sizes: tuple[int, int, int, int]) -> None:
    frames, side, width, height = sizes
    maps = (random_normal((frames, side, side), dtype, *sizes) * 9 + 100).astype(dtype)
    on_device, found = gpu.upload(maps), gpu.poisoned((2,), "float32")
    images = gpu.poisoned((frames, 3, height, width), dtype)
    gpu.kernels.depth_range(gpu.stream, depth_maps=on_device, depth_range=found)
    gpu.kernels.depth_to_image(gpu.stream, depth_maps=on_device, depth_range=found, images=images)
    np.testing.assert_array_equal(gpu.download(found), [maps.min(), maps.max()])
    scaled = reference.depth_normalise(maps.astype(np.float64))
    expected = np.repeat(reference.resize_bilinear(scaled, width, height)[:, None], 3, axis=1)
    assert_close(gpu.download(images), expected, dtype)
    assert gpu.outside_is_untouched(images)


def test_a_flat_depth_map_becomes_nought(gpu: Gpu) -> None:
    maps = gpu.upload(np.full((2, 8, 8), 3.25, np.float16))
    found, images = gpu.poisoned((2,), "float32"), gpu.poisoned((2, 3, 8, 16), "float16")
    gpu.kernels.depth_range(gpu.stream, depth_maps=maps, depth_range=found)
    gpu.kernels.depth_to_image(gpu.stream, depth_maps=maps, depth_range=found, images=images)
    assert not gpu.download(images).any()


# Latents


def random_steps(seed: int = 0) -> Array:
    """Constants in the range of real ones, [4, MAXIMUM_STEPS] float32."""
    return np.random.default_rng(seed).uniform(0.3, 0.9, (4, MAXIMUM_STEPS)).astype(np.float32)


def test_noise_is_the_streams_own(gpu: Gpu) -> None:
    only_noise = np.zeros((4, MAXIMUM_STEPS), np.float32)
    only_noise[1] = 1
    shape = (4, 64, 64)
    sample = gpu.poisoned((1, *shape), "float32")
    gpu.kernels.enter(
        gpu.stream,
        latent=gpu.upload(np.zeros(shape, np.float32)),
        sample=sample,
        parameters=gpu.upload_bytes(parameters_of_rows(1)),
        step_table=gpu.upload(only_noise),
    )
    expected = standard_normal(shape, SEED, frame=7, step=0, purpose=Purpose.ENTER)
    np.testing.assert_allclose(gpu.download(sample)[0], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "chunk_rows"), [((4, 8, 8), 2), ((4, 1, 1), 1), ((3, 5, 7), 0), ((4, 64, 64), 1)])
def test_enter(gpu: Gpu, dtype: str, shape: tuple[int, int, int], chunk_rows: int) -> None:
    latent, before = random_normal(shape, dtype, 1), random_normal((3, *shape), dtype, 2)
    record, steps = parameters_of_rows(3), random_steps()
    sample = gpu.upload(before, chunk_rows)
    arguments = {"latent": gpu.upload(latent), "sample": sample, "step_table": gpu.upload(steps)}

    record["rows"][0]["active"] = 0
    gpu.kernels.enter(gpu.stream, **arguments, parameters=gpu.upload_bytes(record))
    assert gpu.download(sample).tobytes() == before.tobytes()

    record["rows"][0]["active"] = 1
    gpu.kernels.enter(gpu.stream, **arguments, parameters=gpu.upload_bytes(record))
    noise = standard_normal(shape, SEED, frame=7, step=0, purpose=Purpose.ENTER).astype(np.float64)
    expected = reference.enter(latent.astype(np.float64), noise, float(steps[0, 0]), float(steps[1, 0]))
    after = gpu.download(sample)
    assert_close(after[0], expected, dtype)
    assert after[1:].tobytes() == before[1:].tobytes()
    assert gpu.outside_is_untouched(sample)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clean_dtype", ["own", "float32"])
def test_enter_warm_up(gpu: Gpu, dtype: str, clean_dtype: str) -> None:
    shape, row = (4, 6, 5), 3
    clean = random_normal((SINK, *shape), dtype if clean_dtype == "own" else "float32", 1)
    steps = random_steps(1)
    sample = gpu.poisoned(clean.shape, dtype, chunk_rows=3)
    gpu.kernels.enter_warm_up(
        gpu.stream,
        clean=gpu.upload(clean),
        sample=sample,
        row=row,
        parameters=gpu.upload_bytes(parameters_of_rows(1)),
        step_table=gpu.upload(steps),
    )
    noise = np.stack([standard_normal(shape, SEED, frame, row, Purpose.WARM_UP) for frame in range(SINK)])
    expected = reference.enter(
        clean.astype(np.float64), noise.astype(np.float64), float(steps[0, row]), float(steps[1, row])
    )
    assert_close(gpu.download(sample), expected, dtype)
    assert gpu.outside_is_untouched(sample)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "chunk_rows", "shape"),
    [(1, 0, (4, 8, 8)), (2, 1, (4, 64, 64)), (3, 2, (4, 3, 5)), (8, 3, (3, 5, 5)), (4, 0, (4, 8, 8))],
)
def test_lcm_step(gpu: Gpu, dtype: str, rows: int, chunk_rows: int, shape: tuple[int, int, int]) -> None:
    before, model_output = (random_normal((rows, *shape), dtype, index, rows) for index in range(2))
    record, steps = parameters_of_rows(rows), random_steps(2)
    sample, x0 = gpu.upload(before, chunk_rows), gpu.poisoned(before.shape, "float32")
    finished = gpu.poisoned(shape, dtype)
    gpu.kernels.lcm_step(
        gpu.stream,
        sample=sample,
        model_output=gpu.upload(model_output, chunk_rows),
        x0=x0,
        finished=finished,
        parameters=gpu.upload_bytes(record),
        step_table=gpu.upload(steps),
    )
    constants = steps[:, :rows].astype(np.float64)
    expected_x0 = reference.lcm_step(before.astype(np.float64), model_output.astype(np.float64), *constants)
    expected = before.astype(np.float64)
    for row in np.flatnonzero(record["rows"]["active"][: rows - 1]):
        noise = standard_normal(shape, SEED, 1000 * int(row) + 7, int(row) + 1, Purpose.RENOISE).astype(np.float64)
        expected[row + 1] = reference.enter(expected_x0[row], noise, *constants[:2, row + 1])
    assert_close(gpu.download(x0), expected_x0, "float32")
    assert_close(gpu.download(finished), expected_x0[-1], dtype)
    after = gpu.download(sample)
    assert_close(after, expected, dtype)
    assert after[0].tobytes() == before[0].tobytes()
    for tensor in (sample, x0, finished):
        assert gpu.outside_is_untouched(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lcm_step_warm_up(gpu: Gpu, dtype: str) -> None:
    shape, row = (SINK, 4, 6, 5), 5
    before, model_output = (random_normal(shape, dtype, index) for index in range(2))
    steps = random_steps(3)
    x0, finished = gpu.poisoned(shape, "float32"), gpu.poisoned(shape, dtype)
    gpu.kernels.lcm_step_warm_up(
        gpu.stream,
        sample=gpu.upload(before, 3),
        model_output=gpu.upload(model_output, 3),
        x0=x0,
        finished=finished,
        row=row,
        parameters=gpu.upload_bytes(parameters_of_rows(1)),
        step_table=gpu.upload(steps),
    )
    constants = np.repeat(steps[:, row : row + 1].astype(np.float64), SINK, axis=1)
    expected = reference.lcm_step(before.astype(np.float64), model_output.astype(np.float64), *constants)
    assert_close(gpu.download(x0), expected, "float32")
    assert_close(gpu.download(finished), expected, dtype)


def guide(
    kind: GuidanceKind,
    sample: Array,
    model_output: Array,
    negative_output: Array,
    origins: Array,
    record: NDArray[np.void],
    constants: Array,
) -> tuple[Array, Array]:
    """Return the guided noise by its definition, in float64, and the origins that there are then.

    ``negative_output`` is of all rows, of the first ones, or of none.
    """
    tensors = (sample, model_output, negative_output, origins)
    sample, model_output, negative_output, origins = (tensor.astype(np.float64) for tensor in tensors)
    levels, asked = constants[:2], len(negative_output)
    negative: Array = negative_output
    if kind != "full":
        origins[:asked] = implied_latent(sample[:asked], negative_output, *levels[:, :asked])
        negative = virtual_noise(sample, origins, *levels)
    scale, delta = float(record["guidance_scale"]), float(record["guidance_delta"])
    return guided_noise(model_output, negative, scale, delta), origins


def guided_parameters(rows: int, kind: GuidanceKind) -> Array:
    record = parameters_of_rows(rows)
    record["guidance_scale"], record["guidance_delta"] = 1.4, 1 if kind == "full" else 0.7
    return record


KINDS: list[GuidanceKind] = ["self", "full", "initialize"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "chunk_rows", "shape"), [(1, 0, (4, 8, 8)), (2, 1, (4, 64, 64)), (3, 2, (4, 3, 5)), (8, 3, (3, 5, 5))]
)
def test_guided_lcm_step(
    gpu: Gpu, kind: GuidanceKind, dtype: str, rows: int, chunk_rows: int, shape: tuple[int, int, int]
) -> None:
    negative_rows = {"self": 0, "full": rows, "initialize": 1}[kind]
    before, origins = (random_normal((rows, *shape), dtype, index, rows) for index in (0, 2))
    outputs = random_normal((rows + negative_rows, *shape), dtype, 1, rows)
    record, steps = guided_parameters(rows, kind), random_steps(2)
    sample, x0 = gpu.upload(before, chunk_rows), gpu.poisoned(before.shape, "float32")
    finished, looked_back_at = gpu.poisoned(shape, dtype), gpu.upload(origins)
    gpu.kernels.lcm_step(
        gpu.stream,
        sample=sample,
        model_output=gpu.upload(outputs, chunk_rows),
        x0=x0,
        finished=finished,
        parameters=gpu.upload_bytes(record),
        step_table=gpu.upload(steps),
        origins=None if kind == "full" else looked_back_at,
    )
    constants = steps[:, :rows].astype(np.float64)
    noise, led_back_to = guide(kind, before, outputs[:rows], outputs[rows:], origins, record, constants)
    expected = reference.lcm_step(before.astype(np.float64), noise, *constants)
    assert_close(gpu.download(x0), expected, "float32")
    assert_close(gpu.download(finished), expected[-1], dtype)
    found = gpu.download(looked_back_at)
    assert_close(found[:1], led_back_to[:1], dtype)
    assert found[1:].tobytes() == origins[1:].tobytes()
    if kind != "initialize":
        assert found.tobytes() == origins.tobytes()
    for tensor in (sample, x0, finished, looked_back_at):
        assert gpu.outside_is_untouched(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_guided_lcm_step_warm_up(gpu: Gpu, kind: GuidanceKind, dtype: str) -> None:
    shape, row = (SINK, 4, 6, 5), 5
    before, model_output, origins, negative_output = (random_normal(shape, dtype, index) for index in range(4))
    record, steps = guided_parameters(1, kind), random_steps(3)
    x0, finished, looked_back_at = gpu.poisoned(shape, "float32"), gpu.poisoned(shape, dtype), gpu.upload(origins)
    gpu.kernels.lcm_step_warm_up(
        gpu.stream,
        sample=gpu.upload(before, 3),
        model_output=gpu.upload(model_output, 3),
        x0=x0,
        finished=finished,
        row=row,
        parameters=gpu.upload_bytes(record),
        step_table=gpu.upload(steps),
        negative_output=None if kind == "self" else gpu.upload(negative_output),
        origins=None if kind == "full" else looked_back_at,
    )
    constants = np.repeat(steps[:, row : row + 1].astype(np.float64), SINK, axis=1)
    asked = negative_output[: 0 if kind == "self" else SINK]
    noise, led_back_to = guide(kind, before, model_output, asked, origins, record, constants)
    expected = reference.lcm_step(before.astype(np.float64), noise, *constants)
    assert_close(gpu.download(x0), expected, "float32")
    assert_close(gpu.download(finished), expected, dtype)
    assert_close(gpu.download(looked_back_at), led_back_to, dtype)
    assert gpu.outside_is_untouched(looked_back_at)


# The whole form's window


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "chunk_rows"), [(1, 0), (3, 2), (MAXIMUM_ROWS, 0), (MAXIMUM_ROWS, 3)])
def test_window_inputs(gpu: Gpu, dtype: str, rows: int, chunk_rows: int) -> None:
    record = parameters_of_rows(rows)
    position = gpu.poisoned((rows,), "int32", chunk_rows)
    past_position = gpu.poisoned((rows, WINDOW), "int32", chunk_rows)
    past_bias = gpu.poisoned((rows, WINDOW), dtype, chunk_rows)
    gpu.kernels.window_inputs(
        gpu.stream,
        position=position,
        past_position=past_position,
        past_bias=past_bias,
        parameters=gpu.upload_bytes(record),
    )
    windows = record["rows"][:rows]
    np.testing.assert_array_equal(gpu.download(position), windows["position"])
    np.testing.assert_array_equal(gpu.download(past_position), windows["past_position"])
    np.testing.assert_array_equal(gpu.download(past_bias), np.where(windows["visible"] != 0, 0, -np.inf))
    for tensor in (position, past_position, past_bias):
        assert gpu.outside_is_untouched(tensor)


SLOTS = [(1, 12), (4, 24), (64, 320)]  # positions and channels: one copy by 8 bytes, the others by 16


@pytest.mark.parametrize("warm_up", [False, True])
def test_slots_are_scattered(gpu: Gpu, warm_up: bool) -> None:
    rows = SINK if warm_up else 3
    news = [random_normal((rows, *slot), "float16", *slot) for slot in SLOTS]
    pasts = [random_normal((3, WINDOW, *slot), "float16", *slot, 1) for slot in SLOTS]
    rings = [gpu.upload(past[::-1]) for past in pasts]
    tables = [gpu.upload(np.array([ring.row(2 - row).address for row in range(3)], np.uint64)) for ring in rings]
    slots = [NewSlots(gpu.upload(new, 2), table) for new, table in zip(news, tables, strict=True)]
    records = slot_copies(slots)
    assert list(records["vector_bytes"]) == [8, 16, 16]
    copies = gpu.upload(records.view(np.uint8).reshape(len(SLOTS), -1))
    record = parameters_of_rows(3)
    if warm_up:
        gpu.kernels.scatter_sink(gpu.stream, copies=copies, row=1)
    else:
        gpu.kernels.scatter_slots(gpu.stream, copies=copies, rows=3, parameters=gpu.upload_bytes(record))
    for new, past, ring in zip(news, pasts, rings, strict=True):
        if warm_up:
            past[1, :SINK] = new
        else:
            for row in np.flatnonzero(record["rows"]["active"][:3]):
                past[row, record["rows"]["write_slot"][row]] = new[row]
        assert gpu.download(ring).tobytes() == past[::-1].tobytes()
        assert gpu.outside_is_untouched(ring)


def test_kernels_can_be_recorded_into_a_graph(gpu: Gpu) -> None:
    image = random_normal((3, 8, 8), "float16", 1)
    on_device, pixels = gpu.upload(image), gpu.poisoned((8, 8, 3), "uint8")
    gpu.kernels.postprocess(gpu.stream, image=on_device, pixels=gpu.poisoned((8, 8, 3), "uint8"))
    builder = gpu.device.create_graph_builder()
    builder.begin_building()
    gpu.kernels.postprocess(builder, image=on_device, pixels=pixels)
    graph = builder.end_building().complete()
    assert (gpu.download(pixels) == 0xFF).all()
    graph.launch(gpu.stream)
    np.testing.assert_array_equal(gpu.download(pixels), reference.postprocess(image))
