"""Options that choose a backend and its plans, as ``run``, ``serve`` and others have them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from live2diff_trt.cli.choices import BackendChoice, FlavourChoice, FormChoice, ProviderChoice

BackendOption = Annotated[
    BackendChoice, typer.Option(help="Who computes; auto: TensorRT where this bundle was built for this GPU.")
]
FlavourOption = Annotated[FlavourChoice, typer.Option(help="Which TensorRT.")]
FormOption = Annotated[FormChoice, typer.Option(help="Which of TensorRT's plans.")]
RowsOption = Annotated[int | None, typer.Option(min=1, help="Which of TensorRT's plans: rows at once.")]
PlansOption = Annotated[Path | None, typer.Option("--plans", help="Folder of all plans; a cache of the user's.")]
DeviceOption = Annotated[int, typer.Option(min=0, help="Which GPU.")]
ProviderOption = Annotated[ProviderChoice, typer.Option(help="Where ONNX Runtime computes.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads inside one operator; 0: one per core.")]
