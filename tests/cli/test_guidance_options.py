"""Options of guidance, and what ``run`` makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.cli.guidance_options import read_guidance
from live2diff_trt.cli.main import app
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.stream import Stream


def test_what_is_not_given_is_the_default() -> None:
    assert read_guidance("none", None, None, None) == Guidance()
    assert read_guidance("self", None, None, None) == Guidance("self")
    assert read_guidance("self", 0.0, 0.5, None) == Guidance("self", 0.0, delta=0.5)
    assert read_guidance("full", 7.5, None, "blurry") == Guidance("full", 7.5, "blurry")


def test_an_option_without_use_is_refused() -> None:
    with pytest.raises(ControlError, match="--guidance self"):
        read_guidance("none", 1.4, None, None)
    with pytest.raises(ControlError, match="no negative prompt"):
        read_guidance("self", 1.4, None, "blurry")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), Guidance()),
        (("--guidance", "self", "--guidance-scale", "1.4"), Guidance("self", 1.4)),
        (("--guidance", "self", "--guidance-delta", "0.7"), Guidance("self", delta=0.7)),
        (("--guidance", "full", "--negative-prompt", "blurry"), Guidance("full", negative_prompt="blurry")),
    ],
)
def test_the_stream_is_told(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: Guidance
) -> None:
    asked: list[Guidance] = []

    def open_stream(bundle: Path, *, guidance: Guidance, **_: Any) -> None:
        asked.append(guidance)
        raise Live2DiffError("that is all that is asked here", "Ask no more")

    monkeypatch.setattr(Stream, "open", open_stream)
    assert CliRunner().invoke(app, ["run", str(tiny_bundle), "--backend", "onnxruntime", *words]).exit_code == 1
    assert asked == [expected]
