"""The numpy kernels against formulas, against torch's resizing, and against attention written as loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from live2diff_trt.kernels import reference

Float = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]
sides = st.integers(1, 400)

WINDOW, CHANNELS = 6, 16


def random_image(width: int, height: int) -> Image:
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def interpolate(image: Image, width: int, height: int) -> Float:
    """Resize by torch, with antialias, then scale as ``preprocess`` does."""
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    resized = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    return resized[0].numpy() / 127.5 - 1


# preprocess


def test_a_picture_of_the_right_size_is_only_scaled() -> None:
    image = random_image(24, 16)
    out = reference.preprocess(image, 24, 16)
    assert out.dtype == np.float32
    assert out.shape == (3, 16, 24)
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, image.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1))


def test_a_wider_picture_loses_both_sides() -> None:
    image = random_image(40, 16)
    np.testing.assert_array_equal(
        reference.preprocess(image, 24, 16), reference.preprocess(np.ascontiguousarray(image[:, 8:32]), 24, 16)
    )


def test_a_taller_picture_loses_top_and_bottom() -> None:
    image = random_image(24, 30)
    np.testing.assert_array_equal(
        reference.preprocess(image, 24, 16), reference.preprocess(np.ascontiguousarray(image[7:23]), 24, 16)
    )


@pytest.mark.parametrize(("width", "height"), [(7, 5), (24, 16), (100, 90), (300, 20)])
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_constant_picture_stays_constant(width: int, height: int, value: int) -> None:
    image = np.full((height, width, 3), value, np.uint8)
    np.testing.assert_allclose(reference.preprocess(image, 24, 16), value / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("from_width", "width"), [(64, 32), (60, 20), (32, 64), (32, 80)])
def test_a_ramp_stays_a_ramp_away_from_the_edges(from_width: int, width: int) -> None:
    ramp = np.arange(from_width, dtype=np.uint8)
    image = np.repeat(np.tile(ramp, (from_width, 1))[:, :, None], 3, axis=2)
    scale = from_width / width
    expected = ((np.arange(width) + 0.5) * scale - 0.5) / 127.5 - 1
    inner = slice(3, -3)
    out = reference.preprocess(image, width, width)
    np.testing.assert_allclose(out[:, :, inner], np.broadcast_to(expected[inner], (3, width, width - 6)), atol=2e-6)


@pytest.mark.parametrize(("width", "height"), [(12, 8), (23, 15), (9, 6), (3, 2)])
def test_growing_is_plain_bilinear(width: int, height: int) -> None:
    image = random_image(width, height)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    left, top, kept_width, kept_height = reference.cover_rectangle(width, height, 24, 16)
    kept = planes[:, :, top : top + kept_height, left : left + kept_width]
    plain = F.interpolate(kept, size=(16, 24), mode="bilinear", align_corners=False)[0].numpy() / 127.5 - 1
    np.testing.assert_allclose(reference.preprocess(image, 24, 16), plain, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(48, 32), (96, 64), (75, 50), (33, 22), (240, 160)])
def test_shrinking_is_antialiased_as_torch_does_it(width: int, height: int) -> None:
    image = random_image(width, height)
    np.testing.assert_allclose(reference.preprocess(image, 24, 16), interpolate(image, 24, 16), atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(100, 40), (31, 77), (25, 400)])
def test_covering_is_cropping_and_then_resizing(width: int, height: int) -> None:
    image = random_image(width, height)
    left, top, kept_width, kept_height = reference.cover_rectangle(width, height, 24, 16)
    kept = np.ascontiguousarray(image[top : top + kept_height, left : left + kept_width])
    np.testing.assert_allclose(reference.preprocess(image, 24, 16), interpolate(kept, 24, 16), atol=1e-5)


def test_the_callers_picture_is_not_changed_or_aliased() -> None:
    image = random_image(24, 16)
    before = image.copy()
    reference.preprocess(image, 24, 16)[:] = 0
    np.testing.assert_array_equal(image, before)


# cover_rectangle


@given(sides, sides, sides, sides)
def test_the_kept_rectangle_lies_in_the_picture_centred_and_as_large_as_can_be(
    from_width: int, from_height: int, width: int, height: int
) -> None:
    left, top, kept_width, kept_height = reference.cover_rectangle(from_width, from_height, width, height)
    assert kept_width >= 1
    assert kept_height >= 1
    right, bottom = from_width - left - kept_width, from_height - top - kept_height
    assert min(left, top, right, bottom) >= 0
    assert 0 <= right - left <= 1
    assert 0 <= bottom - top <= 1
    assert kept_width == from_width or kept_height == from_height


@given(sides, sides, sides, sides)
def test_the_kept_rectangle_has_the_aspect_ratio_within_a_pixel(
    from_width: int, from_height: int, width: int, height: int
) -> None:
    _, _, kept_width, kept_height = reference.cover_rectangle(from_width, from_height, width, height)
    assert min(abs(kept_width - kept_height * width / height), abs(kept_height - kept_width * height / width)) < 1


@given(sides, sides, st.integers(1, 5))
def test_a_picture_of_the_same_aspect_ratio_is_kept_whole(width: int, height: int, times: int) -> None:
    whole = (0, 0, width * times, height * times)
    assert reference.cover_rectangle(width * times, height * times, width, height) == whole


# resize_bilinear


@pytest.mark.parametrize("shape", [(5, 7), (3, 16, 24), (2, 3, 9, 4), (1, 1)])
@pytest.mark.parametrize(("width", "height"), [(24, 16), (7, 5), (3, 2), (1, 1), (50, 33)])
def test_bilinear_resizing_is_torchs_without_antialias(shape: tuple[int, ...], width: int, height: int) -> None:
    planes = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    batch = torch.from_numpy(planes).double().reshape(1, -1, *shape[-2:])
    wanted = F.interpolate(batch, size=(height, width), mode="bilinear", align_corners=False, antialias=False)
    resized = reference.resize_bilinear(planes, width, height)
    assert resized.shape == (*shape[:-2], height, width)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, wanted.numpy().reshape(resized.shape), atol=1e-6)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    planes = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(reference.resize_bilinear(planes, 7, 5), planes)


# depth_normalise


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e4, -3e3), (1e-6, 5e-6), (100.0, 1e3)])
def test_depth_fills_the_range(scale: float, offset: float) -> None:
    maps = (np.random.default_rng(1).random((3, 4, 5)) * scale + offset).astype(np.float32)
    out = reference.depth_normalise(maps)
    assert out.dtype == np.float32
    assert (out.min(), out.max()) == (-1, 1)
    low, high = maps.astype(np.float64).min(), maps.astype(np.float64).max()
    np.testing.assert_allclose(out, (maps - low) / (high - low) * 2 - 1, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e30, 1e-40])
def test_a_flat_depth_map_becomes_zero(value: float) -> None:
    with np.errstate(all="raise"):
        out = reference.depth_normalise(np.full((2, 3, 4), np.float32(value)))
    np.testing.assert_array_equal(out, np.zeros((2, 3, 4), np.float32))


def test_maps_that_are_flat_apart_are_normalised_together() -> None:
    maps = np.stack([np.full((2, 3), value, np.float32) for value in (1, 2, 5)])
    out = reference.depth_normalise(maps)
    np.testing.assert_array_equal(out, np.broadcast_to(np.array([-1, -0.5, 1])[:, None, None], (3, 2, 3)))


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=12))
def test_finite_depth_stays_finite_and_in_range(values: list[float]) -> None:
    out = reference.depth_normalise(np.array(values, np.float32).reshape(1, 1, -1))
    assert np.all(np.isfinite(out))
    assert np.all(np.abs(out) <= 1)


# enter and lcm_step


def test_entering_mixes_latent_and_noise() -> None:
    latent, noise = np.random.default_rng(2).standard_normal((2, 4, 3, 5))
    np.testing.assert_allclose(reference.enter(latent, noise, 0.6, 0.8), 0.6 * latent + 0.8 * noise, rtol=1e-15)


def test_an_lcm_step_predicts_every_row_by_its_own_constants() -> None:
    generator = np.random.default_rng(3)
    sample, model_output = generator.standard_normal((2, 3, 4, 2, 5))
    sqrt_alpha, sqrt_one_minus_alpha, c_skip, c_out = generator.uniform(0.1, 1, (4, 3))
    out = reference.lcm_step(sample, model_output, sqrt_alpha, sqrt_one_minus_alpha, c_skip, c_out)
    for row in range(3):
        x0 = (sample[row] - sqrt_one_minus_alpha[row] * model_output[row]) / sqrt_alpha[row]
        np.testing.assert_allclose(out[row], c_out[row] * x0 + c_skip[row] * sample[row], rtol=1e-13)


def test_an_lcm_step_undoes_entering_when_the_noise_is_known() -> None:
    latent, noise = np.random.default_rng(4).standard_normal((2, 2, 4, 3, 5))
    sqrt_alpha, sqrt_one_minus_alpha = np.array([0.5, 0.9]), np.sqrt(1 - np.array([0.5, 0.9]) ** 2)
    sample = np.stack(
        [reference.enter(latent[row], noise[row], sqrt_alpha[row], sqrt_one_minus_alpha[row]) for row in range(2)]
    )
    x0 = reference.lcm_step(sample, noise, sqrt_alpha, sqrt_one_minus_alpha, np.zeros(2), np.ones(2))
    np.testing.assert_allclose(x0, latent, atol=1e-14)


# postprocess


def test_postprocess_clips_rounds_and_puts_colours_last() -> None:
    image = np.zeros((3, 2, 4), np.float32)
    image[0], image[1] = -7, 7
    image[2, 1, 3] = 2 * 0.6 / 255 - 1  # 0.6 of a step above black
    out = reference.postprocess(image)
    assert out.dtype == np.uint8
    assert out.shape == (2, 4, 3)
    assert out.flags.c_contiguous
    assert np.all(out[..., 0] == 0)
    assert np.all(out[..., 1] == 255)
    assert out[1, 3, 2] == 1
    assert out[0, 0, 2] == 128  # 127.5 is a tie: to even


def test_postprocess_undoes_preprocess_for_every_value() -> None:
    values = np.arange(256, dtype=np.uint8)
    image = np.stack([values, values[::-1], np.roll(values, 100)], axis=-1).reshape(16, 16, 3)
    np.testing.assert_array_equal(reference.postprocess(reference.preprocess(image, 16, 16)), image)


def test_postprocess_takes_half_precision() -> None:
    image = reference.preprocess(random_image(8, 6), 8, 6)
    assert np.abs(reference.postprocess(image.astype(np.float16)).astype(int) - reference.postprocess(image)).max() <= 1


# attention


class Case:
    """Random tensors of one attention in float64: 3 rows, 5 positions; some slots hidden."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.q, self.k, self.v = generator.standard_normal((3, 3, 5, CHANNELS))
        self.past_k, self.past_v = generator.standard_normal((2, 3, WINDOW, 5, CHANNELS))
        pe_q, pe_k, pe_v = generator.standard_normal((3, WINDOW, CHANNELS))
        self.tables = (pe_q, pe_k, pe_v)
        self.position = np.array([2, 5, 4], np.int32)
        self.past_position = np.stack([generator.permutation(WINDOW) for _ in range(3)]).astype(np.int32)
        self.visible = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]], bool)

    def run(self, heads: int) -> Float:
        return reference.streaming_attention(
            self.q,
            self.k,
            self.v,
            self.past_k,
            self.past_v,
            self.tables,
            self.position,
            self.past_position,
            np.where(self.visible, 0.0, -np.inf),
            heads,
        )


def attend_slowly(q: Float, keys: list[Float], values: list[Float], heads: int) -> Float:
    """Attention of one query vector, head by head, in Python floats."""
    width = len(q) // heads
    out: list[float] = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = [
            math.exp(sum(a * b for a, b in zip(q[part], key[part], strict=True)) / math.sqrt(width)) for key in keys
        ]
        out += [
            sum(weight * value[channel] for weight, value in zip(weights, values, strict=True)) / sum(weights)
            for channel in range(part.start, part.stop)
        ]
    return np.array(out)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_streaming_attention_is_what_loops_compute(heads: int) -> None:
    case = Case(heads)
    pe_q, pe_k, pe_v = case.tables
    out = case.run(heads)
    assert out.shape == case.q.shape
    for row in range(3):
        own = case.position[row]
        slots = [(slot, case.past_position[row, slot]) for slot in range(WINDOW) if case.visible[row, slot]]
        for place in range(5):
            keys = [case.past_k[row, slot, place] + pe_k[at] for slot, at in slots] + [case.k[row, place] + pe_k[own]]
            values = [case.past_v[row, slot, place] + pe_v[at] for slot, at in slots] + [case.v[row, place] + pe_v[own]]
            wanted = attend_slowly(case.q[row, place] + pe_q[own], keys, values, heads)
            np.testing.assert_allclose(out[row, place], wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_warm_up_attention_is_what_loops_compute(heads: int) -> None:
    q, k, v = np.random.default_rng(heads).standard_normal((3, 4, 5, CHANNELS))
    pe_q, pe_k, pe_v = np.random.default_rng(9).standard_normal((3, WINDOW, CHANNELS))
    out = reference.warm_up_attention(q, k, v, (pe_q, pe_k, pe_v), heads)
    assert out.shape == q.shape
    for frame in range(4):
        for place in range(5):
            keys, values = list(k[:, place] + pe_k[:4]), list(v[:, place] + pe_v[:4])
            wanted = attend_slowly(q[frame, place] + pe_q[frame], keys, values, heads)
            np.testing.assert_allclose(out[frame, place], wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("huge", [1e30, -1e30, 1e300])
def test_hidden_slots_have_no_effect_whatever_they_hold(huge: float) -> None:
    case = Case(0)
    out = case.run(2)
    hidden = ~case.visible
    case.past_k[hidden], case.past_v[hidden] = huge, -huge
    case.past_position[hidden] = 0
    np.testing.assert_array_equal(case.run(2), out)


def test_a_frame_without_a_past_sees_itself() -> None:
    case = Case(1)
    case.visible[:] = False
    np.testing.assert_allclose(case.run(8), case.v + case.tables[2][case.position][:, None], rtol=1e-14)


def test_the_order_of_the_slots_does_not_matter() -> None:
    case, moved = Case(2), Case(2)
    order = [3, 0, 5, 1, 4, 2]
    moved.past_k, moved.past_v = case.past_k[:, order], case.past_v[:, order]
    moved.past_position, moved.visible = case.past_position[:, order], case.visible[:, order]
    np.testing.assert_allclose(moved.run(2), case.run(2), rtol=1e-12)


def test_rows_do_not_see_each_other() -> None:
    case = Case(3)
    out = case.run(2)
    for tensor in (case.q, case.k, case.v, case.past_k, case.past_v):
        tensor[1] = 100
    changed = case.run(2)
    np.testing.assert_array_equal(changed[[0, 2]], out[[0, 2]])
    assert np.abs(changed[1] - out[1]).min() > 1


def test_large_scores_do_not_overflow() -> None:
    case = Case(4)
    case.q *= 1e3
    case.k *= 1e3
    assert np.all(np.isfinite(case.run(1)))


# Attention among positions, group norm, gated GELU: torch's


@pytest.mark.parametrize(("tokens", "key_rows"), [(12, 3), (5, 3), (5, 1), (1, 2)])
def test_spatial_attention_is_torchs(tokens: int, key_rows: int) -> None:
    generator = np.random.default_rng((tokens, key_rows))
    q = generator.standard_normal((3, 12, 32)) * 3
    k, v = (generator.standard_normal((key_rows, tokens, 32)) for _ in range(2))
    repeated = [tensor[np.arange(3) % key_rows] for tensor in (k, v)]
    by_head = [torch.from_numpy(one).unflatten(-1, (4, 8)).transpose(1, 2) for one in (q, *repeated)]
    expected = F.scaled_dot_product_attention(*by_head).transpose(1, 2).flatten(2).numpy()
    np.testing.assert_allclose(reference.spatial_attention(q, k, v, 4), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("row_bias_rows", [0, 1, 2, 3])
def test_group_norm_is_torchs(silu: bool, row_bias_rows: int) -> None:
    generator = np.random.default_rng(row_bias_rows)
    x = generator.standard_normal((3, 10, 24)) * 2 + 5
    scale, bias = generator.standard_normal((2, 24))
    row_bias = generator.standard_normal((row_bias_rows, 24)) if row_bias_rows else None
    added = x if row_bias is None else x + row_bias[np.arange(3) % row_bias_rows][:, None]
    channels_first = torch.from_numpy(added.transpose(0, 2, 1).copy())
    normalised = F.group_norm(channels_first, 8, torch.from_numpy(scale), torch.from_numpy(bias), 1e-3)
    expected = (F.silu(normalised) if silu else normalised).numpy().transpose(0, 2, 1)
    actual = reference.group_norm(x, scale, bias, row_bias, 8, 1e-3, silu)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


def test_group_norm_of_what_does_not_vary_is_its_bias() -> None:
    x, bias = np.full((2, 7, 8), 0.1, np.float32), np.arange(8, dtype=np.float32)
    actual = reference.group_norm(x, np.full(8, 3, np.float32), bias, None, 2, 1e-5, False)
    np.testing.assert_array_equal(actual, np.broadcast_to(bias, x.shape))
    assert actual.dtype == np.float32


def test_gated_gelu_is_torchs() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 16)) * 3
    gated, gate = torch.from_numpy(x).chunk(2, dim=-1)
    np.testing.assert_allclose(reference.gated_gelu(x), (gated * F.gelu(gate)).numpy(), rtol=1e-9, atol=1e-12)
    assert reference.gated_gelu(x.astype(np.float32)).dtype == np.float32


def test_new_references_stay_finite_at_the_ends_of_float16() -> None:
    huge = np.full((1, 2, 16), 65504, np.float32)
    huge[:, 1] *= -1
    weights = np.ones(16, np.float32), np.zeros(16, np.float32)
    assert np.isfinite(reference.gated_gelu(huge)).all()
    assert np.isfinite(reference.group_norm(huge, *weights, None, 2, 1e-5, True)).all()
    assert np.isfinite(reference.spatial_attention(huge, huge, huge, 2)).all()
