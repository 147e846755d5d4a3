"""``python -m live2diff_trt.training``: pack footage, train, judge, show."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.training.packed import pack_footage
from live2diff_trt.training.train import Trainer, TrainingOptions

logger = logging.getLogger("live2diff_trt.training")


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
    return parser


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("--footage", type=Path, required=True, help="folder of packed footage")
    train.add_argument("--out", type=Path, required=True, help="folder for weights, log, checkpoints to go on from")
    train.add_argument("--minutes", type=float, default=18.0, help="for all of it")
    train.add_argument("--steps", type=int, help="no more than so many of each network")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cuda", help="cuda or cpu")
    train.add_argument("--clips", type=int, default=12, help="of a batch")
    train.add_argument("--frames", type=int, default=20, help="of a clip, 8 warm-up frames included")
    train.add_argument("--width", type=int, default=192)
    train.add_argument("--height", type=int, default=128)
    train.add_argument("--judge-every", type=int, default=250, help="steps between two lines of the log")
    train.add_argument("--twin", action="store_true", help="the twin without temporal attention, once --out has both")
    train.set_defaults(run=_train)


def _pack(arguments: argparse.Namespace) -> None:
    for path in pack_footage(arguments.out):
        logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


def _train(arguments: argparse.Namespace) -> None:
    names = {field.name for field in fields(TrainingOptions)}
    Trainer(TrainingOptions(**{name: value for name, value in vars(arguments).items() if name in names})).run()


if __name__ == "__main__":
    sys.exit(main())
