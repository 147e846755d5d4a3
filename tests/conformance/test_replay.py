"""Our network replays what the reference recorded; a network with one thing wrong does not."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from live2diff_trt.bundle.signature import bundle_signatures
from live2diff_trt.conformance.goldens import Goldens, GoldensError
from live2diff_trt.conformance.replay import Replay, replay_closed_loop, replay_open_loop
from live2diff_trt.conformance.run import ConformanceReport, describe_recording, run_conformance
from live2diff_trt.conformance.torch_network import TorchNetwork
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.export.unet_graphs import write_unet_graphs
from live2diff_trt.model.weights import load_unet
from live2diff_trt.runtime.onnx_network import OnnxNetwork

pytestmark = pytest.mark.usefixtures("one_thread")

Weights = dict[str, Tensor]
MOTION = "down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"


def replay_briefly(goldens: Goldens, weights: Weights, ticks: int = 4) -> tuple[Replay, Replay]:
    """Replay the first ticks of T = 2 with other weights."""
    recording = replace(goldens.recording(2), ticks=ticks)
    spec = describe_recording(goldens, recording)
    network = TorchNetwork(load_unet(goldens.configuration, weights))
    return replay_open_loop(spec, network, recording), replay_closed_loop(spec, network, recording)


def forget_values(weights: Weights) -> None:
    weights[f"{MOTION}.to_v.weight"].zero_()


def ignore_depth(weights: Weights) -> None:
    weights["flow_conv_in.conv_out.weight"].zero_()
    weights["flow_conv_in.conv_out.bias"].zero_()


def shift_positions(weights: Weights) -> None:
    for key in weights:
        if key.endswith("pos_encoder.pe"):
            weights[key] = weights[key].roll(1, dims=1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_both_loops_replay_the_recording(goldens: Goldens, steps: int) -> None:
    report = run_conformance(goldens.folder, steps, "torch", tolerance=1e-5)
    recording = goldens.recording(steps)
    ticks = recording.ticks
    model_outputs = sum(min(tick + 1, steps) for tick in range(ticks))
    compared = steps + 1 + model_outputs + (ticks - steps + 1)
    for replay in (report.open_loop, report.closed_loop):
        assert replay.worst.error < 1e-5, replay.worst
        assert len({deviation.tensor for deviation in replay.deviations}) == len(replay.deviations) == compared
    assert report.passed


@pytest.mark.parametrize("damage", [forget_values, ignore_depth, shift_positions])
def test_a_network_with_one_thing_wrong_is_found_out(goldens: Goldens, damage: Callable[[Weights], None]) -> None:
    weights = goldens.weights()
    damage(weights)
    open_loop, closed_loop = replay_briefly(goldens, weights)
    assert 1e-4 < open_loop.worst.error < math.inf
    assert 1e-4 < closed_loop.worst.error < math.inf
    assert not ConformanceReport(2, "torch", 1e-4, open_loop, closed_loop).passed


def test_weights_that_are_not_numbers_deviate_infinitely(goldens: Goldens) -> None:
    weights = goldens.weights()
    sound = replay_briefly(goldens, weights, ticks=1)
    weights["conv_out.bias"][0] = torch.nan
    broken = replay_briefly(goldens, weights, ticks=1)
    assert ConformanceReport(2, "torch", 1e30, *sound).passed
    for name, loops in {"open_loop": (broken[0], sound[1]), "closed_loop": (sound[0], broken[1])}.items():
        report = ConformanceReport(2, "torch", 1e30, *loops)
        assert not report.passed
        values = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert values[name]["worst_error"] == "inf"
        assert values["passed"] is False
    assert broken[0].worst.error == broken[1].worst.error == math.inf


def test_a_report_names_the_worst_tensor(goldens: Goldens) -> None:
    weights = goldens.weights()
    ignore_depth(weights)
    replays = replay_briefly(goldens, weights, ticks=2)
    values = ConformanceReport(2, "torch", 1e-4, *replays).to_json()
    for name, replay in zip(("open_loop", "closed_loop"), replays, strict=True):
        worst = max(replay.deviations, key=lambda deviation: deviation.error)
        assert values[name] == {
            "worst_error": worst.error,
            "worst_tensor": worst.tensor,
            "worst_relative_error": max(deviation.relative for deviation in replay.deviations),
            "compared": len(replay.deviations),
        }
    assert (values["steps"], values["backend"], values["tolerance"]) == (2, "torch", 1e-4)


def test_a_recording_that_is_missing_is_answered_with_those_there_are(goldens: Goldens) -> None:
    with pytest.raises(GoldensError, match=r"T7\.safetensors can't be read") as caught:
        run_conformance(goldens.folder, 7, "torch", 1e-4)
    assert caught.value.remedy == "Recorded here: T1, T2, T3"


def test_a_folder_without_recordings_says_so(goldens: Goldens, tmp_path: Path) -> None:
    shutil.copy(goldens.folder / "config.json", tmp_path)
    opened = Goldens.open(tmp_path)
    with pytest.raises(GoldensError) as caught:
        opened.recording(2)
    assert caught.value.remedy == "Recorded here: none"
    with pytest.raises(GoldensError, match=r"weights\.safetensors can't be read"):
        opened.weights()


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"scheduler": {}}', "3"])
def test_a_folder_without_a_sound_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(GoldensError, match=r"config\.json can't be read") as caught:
        Goldens.open(tmp_path)
    assert str(tmp_path) in caught.value.problem


@pytest.mark.parametrize(
    ("name", "read"),
    [("T2.safetensors", lambda opened: opened.recording(2)), ("weights.safetensors", lambda opened: opened.weights())],
)
def test_a_truncated_file_is_refused_by_name(
    goldens: Goldens, tmp_path: Path, name: str, read: Callable[[Goldens], object]
) -> None:
    shutil.copy(goldens.folder / "config.json", tmp_path)
    (tmp_path / name).write_bytes((goldens.folder / name).read_bytes()[:5000])
    opened = Goldens.open(tmp_path)
    with pytest.raises(GoldensError) as caught:
        read(opened)
    assert str(tmp_path / name) in caught.value.problem


def test_the_recorded_stream_is_described(goldens: Goldens) -> None:
    spec = describe_recording(goldens, goldens.recording(3))
    assert spec.step_list == (30, 36, 42)
    assert spec.latent_shape == (4, 16, 16)
    assert (spec.window, spec.sink, spec.prompt_tokens, spec.dtype) == (16, 8, 11, "float32")
    assert len(spec.kv_caches) == 24


@pytest.fixture(scope="module")
def exported(goldens: Goldens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded network's graphs. They have any number of rows, and so serve every recording."""
    folder = tmp_path_factory.mktemp("graphs")
    unet = load_unet(goldens.configuration, goldens.weights())
    write_unet_graphs(folder, unet, describe_recording(goldens, goldens.recording(1)))
    return folder


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_exported_graphs_replay_the_recording(goldens: Goldens, exported: Path, steps: int) -> None:
    recording = goldens.recording(steps)
    spec = describe_recording(goldens, recording)
    network = OnnxNetwork(OnnxGraphs(exported, bundle_signatures(spec), OnnxRuntimeOptions(threads=1)), spec)
    for replay in (replay_open_loop, replay_closed_loop):
        assert replay(spec, network, recording).worst.error < 1e-5


@pytest.mark.usefixtures("windows_files")
def test_on_windows_the_exported_graphs_are_removed_after_the_replay(
    goldens: Goldens, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions map their weights from the folder, so they are closed before it is removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        "live2diff_trt.export.unet_graphs.write_unet_graphs",
        lambda folder, *_: shutil.copytree(exported, folder, dirs_exist_ok=True),
    )
    assert run_conformance(goldens.folder, 2, "onnxruntime", tolerance=1e-4).passed
    assert list(tmp_path.iterdir()) == []
