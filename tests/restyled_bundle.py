"""A bundle with other weights than the one that it was copied from, made without exporting it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from live2diff_trt.bundle.manifest import Bundle, write_manifest
from live2diff_trt.engine.initialisers import BundleInitialisers

TEMPLATE = "{}, in ink"


def restyle_bundle(bundle: Path, folder: Path, seed: int) -> Path:
    """Copy a bundle with its matrices shuffled, its vectors moved a little, and a prompt template."""
    shutil.copytree(bundle, folder)
    initialisers = BundleInitialisers.open(folder)
    generator = np.random.default_rng(seed)
    for place in initialisers.places.values():
        values = np.memmap(place.file, place.dtype, "r+", place.offset, place.shape)
        if len(place.shape) > 1:
            values[:] = generator.permutation(values.reshape(-1)).reshape(place.shape)
        else:
            values += generator.normal(0, 0.1, place.shape).astype(place.dtype)
        values.flush()
    made = {"source": "shuffled", "seed": seed}
    manifest = Bundle.open(folder, files=()).manifest
    weights = {**manifest.weights, "unet": made, "text_encoder": {**made, "prompt_template": TEMPLATE}}
    write_manifest(folder, replace(manifest, weights=weights))
    return folder
