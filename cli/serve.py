"""``live2diff-trt serve``: a page on which visitors stream their own video through a bundle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from live2diff_trt.bundle.schedule import MOST_STEPS
from live2diff_trt.cli.backend import choose_backend
from live2diff_trt.cli.backend_options import (
    BackendOption,
    DeviceOption,
    FlavourOption,
    FormOption,
    PlansOption,
    ProviderOption,
    RowsOption,
    ThreadsOption,
)
from live2diff_trt.cli.choices import BackendChoice, FlavourChoice, FormChoice, ProviderChoice
from live2diff_trt.cli.console import messages, show_log
from live2diff_trt.cli.step_options import read_step_list
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.errors import ControlError

if TYPE_CHECKING:
    from live2diff_trt.serve.settings import ServeSettings


def serve(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="LIVE2DIFF_TOKEN", help="That visitors must bring; made and shown if needed.")
    ] = None,
    origins: Annotated[
        list[str] | None, typer.Option("--origin", help="Another server whose pages may use this one.")
    ] = None,
    max_sessions: Annotated[int, typer.Option(min=1, help="How many stream at once, if memory suffices.")] = 4,
    max_waiting: Annotated[int, typer.Option(min=0, help="How many wait in the line.")] = 32,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="That sessions begin with.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, that sessions begin with.")] = 0,
    step_list: Annotated[str | None, typer.Option(help="Denoising steps other than the bundle's, as in 30,40.")] = None,
    max_steps: Annotated[
        int, typer.Option(min=1, max=MOST_STEPS, help="The most denoising steps that a visitor may ask for.")
    ] = 4,
    styles: Annotated[
        list[str] | None,
        typer.Option("--style", help="NAME=FILE: a style that visitors may choose by its name, as `restyle` wrote it."),
    ] = None,
    webrtc: Annotated[bool, typer.Option(help="Whether WebRTC is offered; WebSocket and JPEG always are.")] = True,
    stun: Annotated[
        list[str] | None, typer.Option(help="A STUN server for WebRTC, as in stun:stun.example.com:3478.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON, one object a line.")] = False,
    backend: BackendOption = BackendChoice.auto,
    flavour: FlavourOption = FlavourChoice.auto,
    form: FormOption = FormChoice.in_segments,
    rows: RowsOption = None,
    plans: PlansOption = None,
    device: DeviceOption = 0,
    provider: ProviderOption = ProviderChoice.cpu,
    threads: ThreadsOption = 0,
) -> None:
    """Serve a page on which visitors stream their own video through a bundle."""
    try:
        from live2diff_trt.serve.server import bind, make_server
        from live2diff_trt.serve.settings import ServeSettings, is_local_name, make_token
    except ImportError as error:
        raise BackendError(
            f"the server needs a package that is not installed ({error})",
            "Install it with `pip install 'live2diff-trt[serve]'`",
        ) from error
    from live2diff_trt.runtime.shared_engine import open_shared_engine

    _set_up_log(log_json)
    made = make_token() if token is None and not is_local_name(host) else None
    settings = ServeSettings(
        host=host,
        port=port,
        token=made if token is None else token,
        origins=tuple(origins or ()),
        webrtc=webrtc,
        stun=tuple(stun or ()),
        prompt=prompt,
        seed=seed,
        max_sessions=max_sessions,
        max_waiting=max_waiting,
    )
    on_cpu = OnnxRuntimeOptions(provider=provider.value, threads=threads)
    files = _read_styles(styles or ())
    on_gpu = TensorRTOptions(flavour=flavour.value, form=form.value, rows=rows, device=device, plans=plans)
    options = choose_backend(backend, bundle, on_cpu, on_gpu, restyled=bool(files))
    steps = None if step_list is None else read_step_list(step_list)
    with (
        bind(settings) as listening,
        closing(open_shared_engine(bundle, options, step_list=steps, max_steps=max_steps, styles=files)) as engine,
    ):
        server = make_server(engine, settings)
        _show_address(listening.getsockname()[1], settings, made)
        server.run(sockets=[listening])


def _read_styles(words: Sequence[str]) -> dict[str, Path]:
    """Return name → file; raise ControlError where a style is no NAME=FILE, or a name stands for two."""
    files: dict[str, Path] = {}
    for word in words:
        name, _, file = word.partition("=")
        if not file or name in files:
            raise ControlError(
                f"--style {word} names no style, or one that was named before", "Write --style NAME=FILE, once for each"
            )
        files[name] = Path(file)
    return files


def _show_address(port: int, settings: ServeSettings, made: str | None) -> None:
    """Say where the page is, with the token that was made for it: behind #, that stays in the browser.

    One that was given is known, and has no place in a log.
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    key = "" if settings.token is None else f"/#token={made or '…'}"
    messages.print(f"http://{host}:{port}{key}", style="bold", highlight=False, soft_wrap=True)


def _set_up_log(log_json: bool) -> None:
    """Let the libraries' warnings go where our messages go, and make all of them JSON if that is asked for."""
    from live2diff_trt.serve.log_lines import JsonLines

    project = logging.getLogger("live2diff_trt")
    if not project.handlers:
        show_log(verbose=False)
    if log_json:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        project.handlers[:] = [handler]
        project.setLevel(min(project.level, logging.INFO))
    for name in ("uvicorn", "aiortc", "aioice"):
        library = logging.getLogger(name)
        library.handlers[:] = project.handlers
        library.setLevel(logging.WARNING)
        library.propagate = False
