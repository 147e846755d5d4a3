"""The parameters of a tick as bytes: every field where the kernels look for it, with what the host knows."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff_trt.kernels.reference import cover_rectangle
from live2diff_trt.kernels.tick_parameters import MAXIMUM_ROWS, SINK, TICK_PARAMETERS, WINDOW
from live2diff_trt.runtime.device_image import DevicePicture
from live2diff_trt.runtime.kv_window import KvWindow
from live2diff_trt.runtime.stream_batch import StreamBatch
from live2diff_trt.runtime.tick_record import TickRecord

UNTOUCHED = 0x5A


@pytest.fixture
def record() -> TickRecord:
    """A record in a buffer of bytes, as in page-locked memory."""
    return TickRecord(np.full(TICK_PARAMETERS.itemsize, UNTOUCHED, np.uint8))


def test_the_source_is_described_with_what_is_kept_of_it(record: TickRecord) -> None:
    before = record.fields.copy()
    picture = DevicePicture(address=2**47 + 256, width=1920, height=1080, row_bytes=5888)
    record.write_source(picture, 512, 384)
    assert record.fields["source"][0] == 2**47 + 256
    assert record.fields["source_row_bytes"][0] == 5888
    assert (record.fields["source_width"][0], record.fields["source_height"][0]) == (1920, 1080)
    crop = tuple(record.fields[f"crop_{name}"][0] for name in ("left", "top", "width", "height"))
    assert crop == cover_rectangle(1920, 1080, 512, 384) == (240, 0, 1440, 1080)
    assert record.fields["seed"] == before["seed"]
    assert (record.fields["rows"] == before["rows"]).all()


def test_another_source_is_described_anew(record: TickRecord) -> None:
    small, large = DevicePicture(512, 64, 48, 192), DevicePicture(512, 1920, 1080, 5760)
    for picture, width, height in ((small, 64, 64), (large, 64, 64), (large, 512, 512), (small, 64, 64)):
        record.write_source(picture, width, height)
        assert record.fields["source_width"][0] == picture.width
        crop = tuple(record.fields[f"crop_{name}"][0] for name in ("left", "top", "width", "height"))
        assert crop == cover_rectangle(picture.width, picture.height, width, height)


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_rows_say_what_the_window_says(record: TickRecord, steps: int) -> None:
    window, batch = KvWindow(steps, WINDOW, SINK), StreamBatch(steps)
    for frame in range(8, 40):
        if frame % 7:
            batch.enter(frame)
        view = window.view()
        record.write_rows(batch.frames, view)
        rows = record.fields["rows"][0][:steps]
        assert rows["active"].tolist() == [int(held is not None) for held in batch.frames]
        assert rows["frame"].tolist() == [held or 0 for held in batch.frames]
        for field in ("position", "write_slot", "past_position", "visible"):
            np.testing.assert_array_equal(rows[field], getattr(view, field), err_msg=field)
        window.advance(batch.active)
        batch.advance()
    assert window.counts.min() > WINDOW  # so all slots were written and overwritten


def test_no_row_sees_the_slot_it_writes(record: TickRecord) -> None:
    window = KvWindow(3, WINDOW, SINK)
    for _ in range(2 * WINDOW):
        record.write_rows([1, 2, 3], window.view())
        for row in record.fields["rows"][0][:3]:
            assert SINK <= row["write_slot"] < WINDOW
            assert row["visible"][row["write_slot"]] == 0
        window.advance([True] * 3)


def test_only_what_is_said_is_written(record: TickRecord) -> None:
    before = record.fields.copy()
    record.write_rows([5, None], KvWindow(2, WINDOW, SINK).view())
    assert (record.fields["rows"][0][2:] == before["rows"][0][2:]).all()
    assert len(record.fields["rows"][0]) == MAXIMUM_ROWS
    for field in ("seed", "source", "source_row_bytes", "source_width", "crop_left", "crop_height"):
        assert record.fields[field] == before[field], field


def test_the_bytes_are_those_that_the_kernels_read(record: TickRecord) -> None:
    """Offsets by hand, from TickParameters in tick_parameters.cuh."""
    record.write_source(DevicePicture(0x0123456789ABCDE0, 640, 480, 1920), 480, 480)
    record.write_rows([7, None, 9], KvWindow(3, WINDOW, SINK).view())
    record.write_seed(0xFEDCBA9876543210)
    record.write_guidance(1.5, 0.25)
    content = record.memory.tobytes()
    assert len(content) == 2368
    assert content[0:16] == (0xFEDCBA9876543210).to_bytes(8, "little") + (0x0123456789ABCDE0).to_bytes(8, "little")
    assert np.frombuffer(content, np.int64, 1, 16).tolist() == [1920]
    assert np.frombuffer(content, np.int32, 6, 24).tolist() == [640, 480, 80, 0, 480, 480]
    rows = np.frombuffer(content, np.int32, 3 * 36, 48).reshape(3, 36)
    assert rows[:, :4].tolist() == [[1, 7, 8, 8], [0, 0, 8, 8], [1, 9, 8, 8]]
    assert rows[0, 4:20].tolist() == list(range(16))
    assert rows[0, 20:].tolist() == [1] * 8 + [0] * 8
    assert np.frombuffer(content, np.float32, 2, 2352).tolist() == [1.5, 0.25]
