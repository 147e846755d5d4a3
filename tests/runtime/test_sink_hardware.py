"""An encoder in hardware is used where it works, and only there."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from live2diff_trt.runtime import sink_hardware
from live2diff_trt.runtime.sink_encoder import LOW_DELAY, EncoderOptions
from live2diff_trt.runtime.sink_hardware import choose_low_delay, encodes

RATE = Fraction(25)


def test_an_encoder_works_if_it_gives_a_picture_at_once() -> None:
    assert encodes(LOW_DELAY, 96, 64, RATE)
    assert not encodes(replace(LOW_DELAY, low_delay=False), 96, 64, RATE)  # keeps some back
    assert not encodes(replace(LOW_DELAY, encoder="h264_of_nobody"), 96, 64, RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("works", [False, True])
def test_hardware_is_chosen_where_it_works(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    asked: list[EncoderOptions] = []

    def encode(options: EncoderOptions, width: int, height: int, frame_rate: Fraction) -> bool:
        asked.append(options)
        return works

    monkeypatch.setattr(sink_hardware, "encodes", encode)
    chosen = choose_low_delay(96, 64, RATE)
    assert [options.encoder for options in asked] == ["h264_nvenc"]
    assert chosen.encoder == ("h264_nvenc" if works else "libx264")
    assert chosen.low_delay


def test_each_encoder_is_told_in_its_own_words() -> None:
    by_x264, by_nvenc = (replace(LOW_DELAY, encoder=name).for_encoder(RATE) for name in ("libx264", "h264_nvenc"))
    assert by_x264 == {"tune": "zerolatency", "crf": "21", "preset": "veryfast", "g": "25", "bf": "0"}
    assert by_nvenc == {"tune": "ull", "zerolatency": "1", "delay": "0", "rc": "vbr", "cq": "21", "g": "25", "bf": "0"}
