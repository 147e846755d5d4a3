"""``python -m live2diff_trt.training``: pack footage, train, judge, show."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.bundle.json_file import write_json
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.trained_weights import SHIPPED, TrainedWeights
from live2diff_trt.training.footage import SHOWN, Frames
from live2diff_trt.training.networks import SINK, TWIN, Networks
from live2diff_trt.training.packed import HELD_OUT_FILE, TRAINING_FILE, pack_footage, read_packed
from live2diff_trt.training.train import Trainer, TrainingOptions

logger = logging.getLogger("live2diff_trt.training")

_CPU = torch.device("cpu")


def main(words: list[str] | None = None) -> int:
    """Run one command; errors end it with their problem and remedy."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = _make_parser().parse_args(words)
    try:
        arguments.run(arguments)
    except Live2DiffError as error:
        logger.error("error: %s", error)
        return 1
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m live2diff_trt.training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    pack = commands.add_parser("pack", help="read all footage, and write it to two small files")
    pack.add_argument("--out", type=Path, required=True, help="folder for them")
    pack.set_defaults(run=_pack)
    _add_train(commands.add_parser("train", help="train the tiny network from packed footage"))
    _add_evaluate(commands.add_parser("evaluate", help="measure trained weights on held-out footage"))
    _add_strip(commands.add_parser("strip", help="draw input and output frames of each style as one picture"))
    return parser


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("--footage", type=Path, required=True, help="folder of packed footage")
    train.add_argument("--out", type=Path, required=True, help="folder for weights, log, checkpoints to go on from")
    train.add_argument("--minutes", type=float, default=18.0, help="for all of it")
    train.add_argument("--steps", type=int, help="no more than so many of each network")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cuda", help="cuda or cpu")
    train.add_argument("--clips", type=int, default=10, help="of a batch")
    train.add_argument("--frames", type=int, default=24, help="of a clip, 8 warm-up frames included")
    train.add_argument("--width", type=int, default=192)
    train.add_argument("--height", type=int, default=128)
    train.add_argument("--judge-every", type=int, default=250, help="steps between two lines of the log")
    train.add_argument("--pause-after", type=float, help="save and stop after so many minutes of this run")
    train.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, help="compile the UNet; left out: on a GPU alone"
    )
    train.add_argument(
        "--captured",
        action=argparse.BooleanOptionalAction,
        help="launch losses and gradients as CUDA graphs; left out: on a GPU alone",
    )
    train.add_argument("--twin", action="store_true", help="the twin without temporal attention, once --out has both")
    train.set_defaults(run=_train)


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("--footage", type=Path, required=True, help="folder of packed footage")
    evaluate.add_argument("--weights", type=Path, help="folder of weights; those that ship with the project")
    evaluate.add_argument("--twin", type=Path, help="folder of the weights of the twin without temporal attention")
    evaluate.add_argument("--out", type=Path, required=True, help="file for the figures; the tables go beside it")
    evaluate.add_argument("--frames", type=int, help="of each shot, 8 warm-up frames included; whole shots")
    evaluate.add_argument("--drift-frames", type=int, default=500, help="of the long stream")
    evaluate.set_defaults(run=_evaluate)


def _add_strip(strip: argparse.ArgumentParser) -> None:
    strip.add_argument("--footage", type=Path, required=True, help="folder of packed footage")
    strip.add_argument("--weights", type=Path, help="folder of weights; those that ship with the project")
    strip.add_argument("--out", type=Path, required=True, help="PNG")
    strip.add_argument(
        "--shots", nargs="+", default=SHOWN, help="of the footage that is trained on, which is free to show"
    )
    strip.add_argument(
        "--held-out", action="store_true", help="show held-out shots instead: to look at, not to publish"
    )
    strip.set_defaults(run=_draw_strip)


def _pack(arguments: argparse.Namespace) -> None:
    for path in pack_footage(arguments.out):
        logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def _train(arguments: argparse.Namespace) -> None:
    names = {field.name for field in fields(TrainingOptions)}
    Trainer(TrainingOptions(**{name: value for name, value in vars(arguments).items() if name in names})).run()


def _evaluate(arguments: argparse.Namespace) -> None:
    from live2diff_trt.training.claims import find_broken_claims
    from live2diff_trt.training.evaluate import evaluate
    from live2diff_trt.training.report import write_report

    shots = {name: frames[: arguments.frames] for name, frames in _read_held_out(arguments.footage).items()}
    trained, weights = _load(arguments), TrainedWeights(_weights_of(arguments))
    twin = None if arguments.twin is None else Networks.load(TWIN, TrainedWeights(arguments.twin), _CPU, weights)
    torch.manual_seed(0)
    untrained = replace(Networks.make(TINY, _CPU), autoencoder=trained.autoencoder)
    found = evaluate(shots, trained, untrained, twin, arguments.drift_frames)
    write_json(arguments.out, found.to_json())
    arguments.out.with_suffix(".md").write_text(write_report(found) + "\n", encoding="utf-8", newline="\n")
    for claim in find_broken_claims(found):
        logger.warning("not borne out: %s", claim)


def _draw_strip(arguments: argparse.Namespace) -> None:
    from live2diff_trt.runtime.sink import encode_png
    from live2diff_trt.training.strip import draw_strip, film_footage

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.held_out:
        shots = _read_held_out(arguments.footage)
    else:
        shots = film_footage(read_packed(arguments.footage / TRAINING_FILE), arguments.shots, TINY.width, TINY.height)
    arguments.out.write_bytes(encode_png(draw_strip(_load(arguments), shots)))


def _read_held_out(folder: Path) -> dict[str, Frames]:
    return {name: frames for name, frames in read_packed(folder / HELD_OUT_FILE).items() if len(frames) > SINK}


def _load(arguments: argparse.Namespace) -> Networks:
    return Networks.load(TINY, TrainedWeights(_weights_of(arguments)), _CPU)


def _weights_of(arguments: argparse.Namespace) -> Path:
    return arguments.weights or SHIPPED


if __name__ == "__main__":
    sys.exit(main())
