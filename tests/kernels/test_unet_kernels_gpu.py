"""The kernels that stand in for parts of the UNet, on a GPU against numpy in float64. Run with ``pytest -m gpu``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from live2diff_trt.kernels import reference
from live2diff_trt.kernels.group_norm import group_norm_workspace

if TYPE_CHECKING:
    from tests.kernels.device import Gpu

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
DTYPES = ("float16", "float32")
# Arithmetic is float32 and a float16 result is that, rounded once: 2^-12 in the mean, 2^-11 at most. Of the largest
# results float32 loses some units in sums of up to 10^5 elements.
RELATIVE = {"float16": 3e-4, "float32": 2e-6}
# On tensor cores the weights are rounded once more, each by itself, so that their errors average out.
ATTENTION_RELATIVE = {"float16": 5e-4, "float32": 3e-6}
EPSILON = 1e-5


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    from tests.kernels.device import open_gpu

    with open_gpu() as opened:
        yield opened


def random_normal(shape: tuple[int, ...], dtype: str, *seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype)


def assert_near(actual: Array, expected: Array, relative: float) -> None:
    """Compare by the norm of the difference, and element by element by what 30 times that norm allows."""
    assert np.isfinite(actual).all()
    difference = actual.astype(np.float64) - expected
    size = float(np.sqrt(np.mean(expected**2)))
    assert float(np.sqrt(np.mean(difference**2))) <= relative * size
    assert float(np.abs(difference).max()) <= relative * (30 * size + 2 * float(np.abs(expected).max()))


# Group norm

NORMS = [  # positions, channels, groups
    *((4096, channels, 32) for channels in (320, 640, 960)),
    *((1024, channels, 32) for channels in (320, 640, 960, 1280, 1920)),
    *((256, channels, 32) for channels in (640, 1280, 1920, 2560)),
    *((64, channels, 32) for channels in (1280, 2560)),
    *((positions, channels, 8) for positions in (256, 64, 16, 4, 1) for channels in (32, 64, 96, 128)),
    *((positions, channels, 32) for positions in (64, 1) for channels in (32, 64, 96, 128)),
    # The last that a block keeps, and the first that none does: in vectors of 4, 8 and 16 bytes of float16.
    *((positions, 320, 32) for positions in (3264, 3265)),
    *((positions, 640, 32) for positions in (3264, 3265)),
    *((positions, 1280, 32) for positions in (1632, 1633)),
    *((positions, 320, 32) for positions in (1, 2, 3, 203, 205)),
    *((positions, 96, 8) for positions in (5, 5456, 5457)),
    (5000, 320, 32),
    (2881, 640, 32),
    (77, 8, 1),
    (1013, 40, 8),
    (3, 2560, 32),
    (131, 128, 128),
]


def run_group_norm(
    gpu: Gpu, x: Array, *, groups: int, chunk_rows: int = 0, row_bias_rows: int = 0, silu: bool = False,
    in_place: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Return what the kernel makes of x, and what it should."""
    rows, positions, channels = x.shape
    dtype = x.dtype.name
    scale, bias = (random_normal((channels,), dtype, index, positions, channels) for index in range(2))
    row_bias = random_normal((row_bias_rows, channels), dtype, 2, positions, channels) if row_bias_rows else None
    on_device = gpu.upload(x, chunk_rows)
    out = on_device if in_place else gpu.poisoned(x.shape, dtype, chunk_rows)
    bias_on_device = None
    if row_bias is not None:
        bias_on_device = gpu.upload(row_bias, chunk_rows if row_bias_rows > chunk_rows else 0)
    gpu.kernels.group_norm(
        gpu.stream,
        x=on_device,
        out=out,
        scale=gpu.upload(scale),
        bias=gpu.upload(bias),
        row_bias=bias_on_device,
        statistics=gpu.poisoned(group_norm_workspace(rows, groups), "float32"),
        groups=groups,
        epsilon=EPSILON,
        silu=silu,
    )
    wide_x, wide_scale, wide_bias = (one.astype(np.float64) for one in (x, scale, bias))
    wide_row_bias = None if row_bias is None else row_bias.astype(np.float64)
    actual = gpu.download(out)
    assert gpu.outside_is_untouched(out)
    if not in_place:
        assert gpu.download(on_device).tobytes() == x.tobytes()
    return actual, reference.group_norm(wide_x, wide_scale, wide_bias, wide_row_bias, groups, EPSILON, silu)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", NORMS, ids=str)
def test_group_norm(gpu: Gpu, dtype: str, sizes: tuple[int, int, int]) -> None:
    positions, channels, groups = sizes
    x = (random_normal((2, positions, channels), dtype, *sizes) * 2 + 1).astype(dtype)
    silu = channels % 640 != 0
    assert_near(*run_group_norm(gpu, x, groups=groups, silu=silu), RELATIVE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    ("rows", "chunk_rows", "row_bias_rows"), [(1, 0, 1), (3, 2, 2), (3, 2, 3), (4, 2, 1), (8, 3, 5), (8, 0, 2)]
)
def test_group_norm_of_rows_in_chunks(
    gpu: Gpu, dtype: str, silu: bool, rows: int, chunk_rows: int, row_bias_rows: int
) -> None:
    for positions, channels, groups in ((4000, 320, 32), (1000, 320, 32), (37, 96, 32), (37, 96, 8)):
        x = random_normal((rows, positions, channels), dtype, rows, channels)
        actual, expected = run_group_norm(
            gpu, x, groups=groups, chunk_rows=chunk_rows, row_bias_rows=row_bias_rows, silu=silu
        )
        assert_near(actual, expected, RELATIVE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm_in_place(gpu: Gpu, dtype: str) -> None:
    for positions, channels in ((4096, 640), (1024, 640), (1024, 320), (256, 1280)):
        x = random_normal((3, positions, channels), dtype, 1)
        actual, expected = run_group_norm(gpu, x, groups=32, chunk_rows=2, row_bias_rows=2, silu=True, in_place=True)
        assert_near(actual, expected, RELATIVE[dtype])
        again, _ = run_group_norm(gpu, x, groups=32, chunk_rows=2, row_bias_rows=2, silu=True)
        assert again.tobytes() == actual.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", [1, 64, 4096])
def test_group_norm_of_what_does_not_vary_is_its_bias(gpu: Gpu, dtype: str, positions: int) -> None:
    for channels in (320, 640, 1280):
        actual, expected = run_group_norm(gpu, np.full((2, positions, channels), 3.3, dtype), groups=32)
        np.testing.assert_array_equal(actual, expected.astype(dtype))


@pytest.mark.parametrize(("dtype", "mean", "deviation"), [("float16", 500.0, 2.0), ("float32", 1000.0, 0.01)])
def test_group_norm_where_the_mean_is_far_larger_than_the_deviation(
    gpu: Gpu, dtype: str, mean: float, deviation: float
) -> None:
    for positions, channels in ((4096, 320), (1024, 640), (1024, 1280), (100, 96)):
        x = (random_normal((2, positions, channels), "float32", channels) * deviation + mean).astype(dtype)
        # Differences from the first position are exact, and the variance is to about 10^-6.
        assert_near(*run_group_norm(gpu, x, groups=32), RELATIVE[dtype])


# Attention

ATTENTIONS = [  # positions, tokens (0: its own), heads, head channels, rows, rows of keys, rows in a chunk
    (4096, 0, 8, 40, 2, 2, 0),
    (1024, 0, 8, 80, 2, 2, 2),
    (256, 0, 8, 160, 2, 2, 1),
    (64, 0, 8, 160, 2, 2, 0),
    (4096, 77, 8, 40, 2, 1, 0),
    (1024, 77, 8, 80, 4, 2, 2),
    (256, 77, 8, 160, 3, 2, 2),
    (64, 77, 8, 160, 8, 4, 4),
    (2881, 0, 8, 40, 2, 2, 1),
    (777, 0, 8, 80, 2, 2, 0),
    (195, 0, 8, 160, 3, 3, 2),
    *((33, tokens, 2, head, 2, 1, 1) for head in (40, 80, 160) for tokens in (1, 31, 32, 33, 63, 64, 65, 129)),
    *((positions, 11, 2, head, 3, 2, 2) for head in (4, 8) for positions in (256, 64, 16, 4, 1)),
    *((positions, 0, 3, head, 2, 2, 0) for head in (4, 8) for positions in (256, 65, 4, 1)),
]


def run_spatial_attention(
    gpu: Gpu, q: Array, k: Array, v: Array, heads: int, chunk_rows: int = 0
) -> tuple[Array, Array, Any]:
    """Return what the kernel computes at some positions, what it should, and which."""
    out = gpu.poisoned(q.shape, q.dtype.name, chunk_rows)
    keys, values = (gpu.upload(one, chunk_rows if len(one) > chunk_rows else 0) for one in (k, v))
    gpu.kernels.spatial_attention(gpu.stream, q=gpu.upload(q, chunk_rows), k=keys, v=values, out=out, heads=heads)
    actual = gpu.download(out)
    assert gpu.outside_is_untouched(out)
    assert np.isfinite(actual).all()
    some = np.unique(np.linspace(0, q.shape[1] - 1, 500).astype(int))
    wide = [one.astype(np.float64) for one in (q[:, some], k, v)]
    return actual[:, some], reference.spatial_attention(wide[0], wide[1], wide[2], heads), some


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", ATTENTIONS, ids=str)
def test_spatial_attention(gpu: Gpu, dtype: str, sizes: tuple[int, ...]) -> None:
    positions, tokens, heads, head_channels, rows, key_rows, chunk_rows = sizes
    channels = heads * head_channels
    q = (random_normal((rows, positions, channels), dtype, 0, *sizes) * 2).astype(dtype)
    k, v = (random_normal((key_rows, tokens or positions, channels), dtype, index, *sizes) for index in (1, 2))
    actual, expected, _ = run_spatial_attention(gpu, q, k, v, heads, chunk_rows)
    assert_near(actual, expected, ATTENTION_RELATIVE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_channels", [4, 8, 40, 80, 160])
def test_spatial_attention_whose_scores_grow(gpu: Gpu, dtype: str, head_channels: int) -> None:
    """The largest score of most queries comes late: weights are scaled anew, again and again."""
    q = (random_normal((1, 200, head_channels), dtype, 1, head_channels) * 4).astype(dtype)
    k, v = (random_normal((1, 500, head_channels), "float32", index, head_channels) for index in (2, 3))
    k = (k * np.linspace(0.01, 4, 500, dtype=np.float32)[:, None]).astype(dtype)
    # Scores of around 60 are sums in float32 whose exponent loses some 10^-6 times them.
    actual, expected, _ = run_spatial_attention(gpu, q, k, v.astype(dtype), 1)
    assert_near(actual, expected, {"float16": 5e-4, "float32": 3e-5}[dtype])


@pytest.mark.parametrize("head_channels", [40, 80, 160])
def test_spatial_attention_does_not_overflow(gpu: Gpu, head_channels: int) -> None:
    """Scores of some 10^5, of which float16 holds none: a query takes what it is most like."""
    k = np.full((1, 100, head_channels), -200, np.float16)
    k[:, 70] = 200
    q, v = np.full((1, 40, head_channels), 100, np.float16), random_normal(k.shape, "float16", head_channels)
    actual, _, _ = run_spatial_attention(gpu, q, k, v, 1)
    # Its weight is 2 to the power of what float32 rounds off 10^5, and is then rounded again, but not in the sum.
    np.testing.assert_allclose(actual, np.repeat(v[:, 70:71], 40, axis=1), rtol=2e-3, atol=1e-6)


def test_parts_of_one_product_attend(gpu: Gpu) -> None:
    """q, k and v lie one after another in each chunk, as a plan leaves them."""
    rows, positions, channels, chunk_rows = 4, 96, 320, 2
    packed = random_normal((rows // chunk_rows, 3, chunk_rows, positions, channels), "float16", 5)
    on_device = gpu.upload(packed)
    part_bytes = chunk_rows * positions * channels * 2
    tensors = {
        name: type(on_device)(
            on_device.address + part * part_bytes, (rows, positions, channels), "float16", on_device.device_id,
            chunk_rows, 3 * part_bytes,
        )
        for part, name in enumerate("qkv")
    }  # fmt: skip
    out = gpu.poisoned((rows, positions, channels), "float16")
    gpu.kernels.spatial_attention(gpu.stream, **tensors, out=out, heads=8)
    q, k, v = (packed[:, part].reshape(rows, positions, channels).astype(np.float64) for part in range(3))
    assert_near(gpu.download(out), reference.spatial_attention(q, k, v, 8), ATTENTION_RELATIVE["float16"])


# GEGLU


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [(2, 4096, 1280, 0), (2, 1024, 2560, 1), (2, 256, 5120, 2), (3, 64, 5120, 2), (8, 77, 128, 3), (1, 1, 8, 0)],
    ids=str,
)
def test_gated_gelu(gpu: Gpu, dtype: str, sizes: tuple[int, int, int, int]) -> None:
    rows, positions, width, chunk_rows = sizes
    x = (random_normal((rows, positions, 2 * width), dtype, *sizes) * 3).astype(dtype)
    out = gpu.poisoned((rows, positions, width), dtype, chunk_rows)
    gpu.kernels.gated_gelu(gpu.stream, x=gpu.upload(x, chunk_rows), out=out)
    actual = gpu.download(out)
    assert gpu.outside_is_untouched(out)
    some = np.unique(np.linspace(0, positions - 1, 100).astype(int))
    assert_near(actual[:, some], reference.gated_gelu(x[:, some].astype(np.float64)), RELATIVE[dtype])


def test_gelu_is_exact_to_float32(gpu: Gpu) -> None:
    gates = np.linspace(-20, 20, 80000, dtype=np.float32).reshape(1, 1000, 80)
    out = gpu.poisoned(gates.shape, "float32")
    gpu.kernels.gated_gelu(gpu.stream, x=gpu.upload(np.concatenate([np.ones_like(gates), gates], axis=2)), out=out)
    x = gates.astype(np.float64)
    expected = reference.gated_gelu(np.concatenate([np.ones_like(x), x], axis=2))
    difference = np.abs(gpu.download(out) - expected)
    assert (difference <= 2e-7 * (1 + np.abs(x))).all()
    central = np.abs(x) < 5
    assert (difference[central] <= 3e-6 * np.abs(expected[central])).all()


def test_gated_gelu_of_every_float16(gpu: Gpu) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    gates = every[np.isfinite(every)].reshape(1, 62, 1024)
    out = gpu.poisoned(gates.shape, "float16")
    gpu.kernels.gated_gelu(gpu.stream, x=gpu.upload(np.concatenate([np.ones_like(gates), gates], axis=2)), out=out)
    x = gates.astype(np.float64)
    expected = reference.gated_gelu(np.concatenate([np.ones_like(x), x], axis=2))
    np.testing.assert_allclose(gpu.download(out), expected, rtol=6e-4, atol=2e-7)


# All of them


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_is_the_same_every_time(gpu: Gpu, dtype: str) -> None:
    x = random_normal((2, 900, 320), dtype, 7)
    attended = [run_spatial_attention(gpu, x, x, x, 8)[0].tobytes() for _ in range(2)]
    assert attended[0] == attended[1]
    for positions in (900, 4000):
        x = random_normal((2, positions, 320), dtype, 7)
        normalised = [run_group_norm(gpu, x, groups=32, silu=True)[0].tobytes() for _ in range(2)]
        assert normalised[0] == normalised[1]


def test_they_can_be_recorded_into_a_graph(gpu: Gpu) -> None:
    x = random_normal((2, 64, 320), "float16", 8)
    on_device, weight = gpu.upload(x), gpu.upload(np.ones(320, np.float16))
    normalised, attended, gated = (gpu.poisoned((2, 64, width), "float16") for width in (320, 320, 160))
    statistics = gpu.poisoned(group_norm_workspace(2, 32), "float32")

    def launch(stream: Any) -> None:
        gpu.kernels.group_norm(
            stream, x=on_device, out=normalised, scale=weight, bias=weight, row_bias=None, statistics=statistics,
            groups=32, epsilon=EPSILON, silu=False,
        )  # fmt: skip
        gpu.kernels.spatial_attention(stream, q=normalised, k=normalised, v=normalised, out=attended, heads=8)
        gpu.kernels.gated_gelu(stream, x=attended, out=gated)

    launch(gpu.stream)
    expected = gpu.download(gated)
    assert np.isfinite(expected).all()
    gpu.kernels.gated_gelu(gpu.stream, x=on_device, out=gated)  # something else
    builder = gpu.device.create_graph_builder()
    builder.begin_building()
    launch(builder)
    graph = builder.end_building().complete()
    assert gpu.download(gated).tobytes() != expected.tobytes()
    graph.launch(gpu.stream)
    assert gpu.download(gated).tobytes() == expected.tobytes()
