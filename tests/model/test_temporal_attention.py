"""torch's temporal attention equals numpy's; its position tables follow the weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from live2diff_trt.conformance.goldens import Goldens
from live2diff_trt.kernels import reference
from live2diff_trt.model.temporal_attention import (
    PositionTables,
    StreamingAttend,
    TemporalAttention,
    WarmUpAttend,
    sinusoidal_table,
    streaming_attention,
    warm_up_attention,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, WINDOW, POSITIONS, CHANNELS = 3, 16, 5, 32


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_tables(seed: int) -> PositionTables:
    return PositionTables(*draw(3, WINDOW, CHANNELS, seed=seed))


def draw_window() -> tuple[Tensor, Tensor, Tensor]:
    generator = np.random.default_rng(0)
    position = torch.tensor([8, 15, 11], dtype=torch.int32)
    past_position = torch.from_numpy(generator.integers(0, WINDOW, (ROWS, WINDOW), dtype=np.int32))
    hidden = torch.from_numpy(generator.random((ROWS, WINDOW)) < 0.4)
    return position, past_position, torch.zeros(ROWS, WINDOW, dtype=torch.float64).masked_fill(hidden, -math.inf)


def make_attention(seed: int) -> TemporalAttention:
    torch.manual_seed(seed)
    return TemporalAttention("place", CHANNELS, position_rows=24, window=WINDOW)


def check_tables(attention: TemporalAttention) -> None:
    pe = attention.pos_encoder.pe[0, :WINDOW].double()
    for table, projection in (
        (attention.pe_q, attention.to_q),
        (attention.pe_k, attention.to_k),
        (attention.pe_v, attention.to_v),
    ):
        assert table.dtype == projection.weight.dtype
        torch.testing.assert_close(table.double(), pe @ projection.weight.double().T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_streaming_attention_equals_the_numpy_reference(heads: int) -> None:
    q, k, v = draw(3, ROWS, POSITIONS, CHANNELS, seed=1)
    past_k, past_v = draw(2, ROWS, WINDOW, POSITIONS, CHANNELS, seed=2)
    tables, window = draw_tables(3), draw_window()
    ours = streaming_attention(q, k, v, past_k, past_v, tables, *window, heads)
    position, past_position, past_bias = (tensor.numpy() for tensor in window)
    pe = (tables.q.numpy(), tables.k.numpy(), tables.v.numpy())
    past = past_k.numpy(), past_v.numpy()
    wanted = reference.streaming_attention(
        q.numpy(), k.numpy(), v.numpy(), *past, pe, position, past_position, past_bias, heads
    )
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_warm_up_attention_equals_the_numpy_reference(heads: int) -> None:
    q, k, v = draw(3, 8, POSITIONS, CHANNELS, seed=1)
    tables = draw_tables(3)
    ours = warm_up_attention(q, k, v, tables, heads)
    pe = (tables.q.numpy(), tables.k.numpy(), tables.v.numpy())
    wanted = reference.warm_up_attention(q.numpy(), k.numpy(), v.numpy(), pe, heads)
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_streaming_gathers_keys_without_position_in_order() -> None:
    past = {place: (torch.zeros(ROWS, WINDOW, POSITIONS, CHANNELS).double(),) * 2 for place in ("b", "a")}
    attend = StreamingAttend(past, *draw_window(), heads=8)
    q, k, v = draw(3, ROWS, POSITIONS, CHANNELS, seed=1)
    for place in ("b", "a"):
        attend(place, q, k, v, draw_tables(3))
    assert list(attend.new) == ["b", "a"]
    for new_k, new_v in attend.new.values():
        assert torch.equal(new_k, k)
        assert torch.equal(new_v, v)
    assert not any(tensor.any() for pair in past.values() for tensor in pair)


def test_warm_up_gathers_keys_without_position() -> None:
    attend = WarmUpAttend(heads=8)
    q, k, v = draw(3, 8, POSITIONS, CHANNELS, seed=1)
    attend("a", q, k, v, draw_tables(3))
    assert torch.equal(attend.new["a"][0], k)
    assert torch.equal(attend.new["a"][1], v)


def test_a_new_module_has_its_tables_folded() -> None:
    check_tables(make_attention(0))


def test_loading_weights_folds_the_tables_anew() -> None:
    attention, other = make_attention(0), make_attention(1)
    before = attention.pe_q.clone()
    attention.load_state_dict(other.state_dict())
    check_tables(attention)
    assert (attention.pe_q - before).abs().max() > 0.1
    assert torch.equal(attention.pe_v, other.pe_v)


def test_loading_another_position_encoding_folds_the_tables_anew() -> None:
    attention = make_attention(0)
    before = attention.pe_k.clone()
    state = {key: tensor.clone() for key, tensor in attention.state_dict().items()}
    state["pos_encoder.pe"] += 1
    attention.load_state_dict(state)
    check_tables(attention)
    assert (attention.pe_k - before).abs().max() > 0.1


def test_weights_assigned_to_a_module_without_memory_fold_its_tables() -> None:
    with torch.device("meta"):
        attention = make_attention(0)
    attention.load_state_dict(make_attention(2).state_dict(), assign=True)
    check_tables(attention)


def test_the_tables_are_not_in_the_state_dict() -> None:
    keys = {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias", "pos_encoder.pe"}
    assert set(make_attention(0).state_dict()) == keys


def test_the_sinusoids_are_those_of_the_formula() -> None:
    table = sinusoidal_table(24, 8)
    for row in range(24):
        for channel in range(8):
            angle = row / 10000 ** ((channel // 2 * 2) / 8)
            wanted = math.cos(angle) if channel % 2 else math.sin(angle)
            assert table[row, channel].item() == pytest.approx(wanted, abs=1e-5)


def test_the_sinusoids_are_those_of_the_recorded_weights(goldens: Goldens) -> None:
    recorded = {key: pe for key, pe in goldens.weights().items() if key.endswith("pos_encoder.pe")}
    assert len(recorded) == 24
    for pe in recorded.values():
        torch.testing.assert_close(sinusoidal_table(*pe.shape[1:]), pe[0], rtol=0, atol=1e-5)
