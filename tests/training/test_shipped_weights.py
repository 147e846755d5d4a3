"""The weights that ship with the project keep their promises, on footage that they never saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from live2diff_trt import Stream
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.shipped import SHIPPED_BUNDLE
from live2diff_trt.export.bundle import export_bundle
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.trained_weights import SHIPPED, TrainedWeights
from live2diff_trt.export.weights_source import PARTS
from live2diff_trt.training.claims import LEAST_GAIN_DB, MOST_FLICKER, find_broken_claims
from live2diff_trt.training.evaluate import Evaluation
from live2diff_trt.training.footage import HELD_OUT, Frames, read_shots
from live2diff_trt.training.networks import Networks
from live2diff_trt.training.packed import HEIGHT, WIDTH
from live2diff_trt.training.styled_clip import encode_clip, find_quality, follow_clip, make_styled, make_wanted
from live2diff_trt.training.styles import STYLES, Style

STYLE = {style.name: style for style in STYLES}
CHANGE = 16
"""The frame before which the prompt changes."""


@pytest.fixture(scope="module")
def shot() -> Frames:
    return max(read_shots(HELD_OUT, WIDTH, HEIGHT), key=len)[:24]


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Networks.load(TINY, TrainedWeights(), torch.device("cpu"))
    torch.set_num_threads(threads)


def test_they_are_small_and_complete() -> None:
    TrainedWeights().check()
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 8e6
    assert {"LICENSE", "sources.md", "training-log.jsonl", "held-out.json"} <= {file.name for file in SHIPPED.iterdir()}


def test_the_packages_bundle_is_made_from_them() -> None:
    bundle = Bundle.open(SHIPPED_BUNDLE)
    assert sum(file.stat().st_size for file in SHIPPED_BUNDLE.iterdir()) <= 12e6
    assert bundle.spec == TINY.spec()
    for part in PARTS:
        assert bundle.manifest.weights[part] == TrainedWeights().describe(part)


@pytest.mark.slow
def test_the_packages_bundle_is_what_an_export_gives_today(tmp_path: Path) -> None:
    export_bundle(TINY, TrainedWeights(), tmp_path / "tiny")
    stale = [
        file.name
        for file in (tmp_path / "tiny").iterdir()
        if file.name != "manifest.json" and file.read_bytes() != (SHIPPED_BUNDLE / file.name).read_bytes()
    ]
    assert not stale, "write it again with `make bundle`"


def test_the_recorded_figures_bear_every_claim_out() -> None:
    figures = json.loads((SHIPPED / "held-out.json").read_text(encoding="utf-8"))
    assert find_broken_claims(Evaluation.from_json(figures)) == []


@pytest.mark.parametrize("style", [STYLE["sketch"], STYLE["neon"]], ids=lambda style: style.name)
def test_what_is_measured_here_bears_them_out(networks: Networks, shot: Frames, style: Style) -> None:
    wanted, motions = make_wanted(shot, style), follow_clip(shot)
    clip = encode_clip(networks, shot)
    cached = find_quality(make_styled(networks, clip, style, TINY.step_list), wanted, motions)
    masked = find_quality(make_styled(networks, clip, style, TINY.step_list, "alone"), wanted, motions)
    torch.manual_seed(0)
    random = replace(Networks.make(TINY, torch.device("cpu")), autoencoder=networks.autoencoder)
    untrained = find_quality(make_styled(random, clip, style, TINY.step_list), wanted, motions)
    assert cached.psnr_db >= untrained.psnr_db + LEAST_GAIN_DB
    assert cached.psnr_db >= masked.psnr_db
    assert cached.flicker <= MOST_FLICKER * masked.flicker


def test_a_prompt_is_seen_within_t_frames(shot: Frames) -> None:
    changed = CHANGE + TINY.spec().steps
    with Stream.open(SHIPPED_BUNDLE, prompt=STYLE["sketch"].prompt) as stream:
        pictures = [frame.image for picture in shot[:CHANGE] for frame in stream(picture)]
        stream.set_prompt(STYLE["neon"].prompt)
        pictures += [frame.image for picture in shot[CHANGE:] for frame in stream(picture)]
        pictures += [frame.image for frame in stream.flush()]
    sketch, neon = (make_wanted(shot, STYLE[name]).astype(np.float64) for name in ("sketch", "neon"))

    def is_neon(index: int) -> bool:
        found = pictures[index].astype(np.float64)
        return bool(np.abs(found - neon[index]).mean() < np.abs(found - sketch[index]).mean())

    assert not is_neon(CHANGE - TINY.spec().steps - 1)
    assert is_neon(changed)
