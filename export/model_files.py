"""Which files of a model are needed: chosen by name alone, so that of a repository on the hub no others are fetched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Literal

from live2diff_trt.export.checkpoint_file import choose_only_weights_file
from live2diff_trt.export.text_files import choose_tokenizer
from live2diff_trt.export.weights_files import DIFFUSERS, TRANSFORMERS, Stems, choose_weights

ChooseFiles = Callable[[Collection[str], str], tuple[str, ...]]
"""From the names of all files, by their paths inside the model, and what to call the model in messages, to those that
are needed; raises CheckpointError where what is needed is not among them."""

BaseNetwork = Literal["unet", "vae", "text_encoder"]
BASE_STEMS: dict[BaseNetwork, Stems] = {"unet": DIFFUSERS, "vae": DIFFUSERS, "text_encoder": TRANSFORMERS}
"""The networks of a base model in diffusers' layout, by their folders, and what their weights are called there."""


def choose_network(stems: Stems) -> ChooseFiles:
    """Return the choice of a network in a folder of its own: its configuration and its weights."""

    def choose(names: Collection[str], where: str) -> tuple[str, ...]:
        return "config.json", *choose_weights(names, stems, where).all

    return choose


def choose_base(networks: Iterable[BaseNetwork], *, tokenizer: bool) -> ChooseFiles:
    """Return the choice of some networks of a base model in diffusers' layout, and of its tokenizer if wanted."""
    parts: dict[str, ChooseFiles] = {network: choose_network(BASE_STEMS[network]) for network in networks}
    if tokenizer:
        parts["tokenizer"] = choose_tokenizer

    def choose(names: Collection[str], where: str) -> tuple[str, ...]:
        return tuple(
            f"{part}/{name}"
            for part, choose_part in parts.items()
            for name in choose_part(_names_inside(part, names), f"{where}/{part}")
        )

    return choose


def choose_single(names: Collection[str], where: str) -> tuple[str, ...]:
    """Choose the only weights file."""
    return (choose_only_weights_file(names, where),)


def _names_inside(folder: str, names: Collection[str]) -> set[str]:
    return {name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")}
