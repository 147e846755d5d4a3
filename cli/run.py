"""``live2diff-trt run``: streams a source through a bundle."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
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
from live2diff_trt.cli.choices import (
    BackendChoice,
    FlavourChoice,
    FormChoice,
    GuidanceChoice,
    InterpolationChoice,
    PaceChoice,
    ProviderChoice,
    Switch,
)
from live2diff_trt.cli.console import messages, output
from live2diff_trt.cli.guidance_options import read_guidance
from live2diff_trt.cli.progress import RunProgress
from live2diff_trt.cli.prompt_options import blend_prompts, follow_changes, read_changes
from live2diff_trt.cli.step_options import StepOptions, read_steps
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.paced_run import PacedRun
from live2diff_trt.runtime.pacing import Pace
from live2diff_trt.runtime.prompt_blend import Transition
from live2diff_trt.runtime.scene_cut import SceneCut
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.sink import open_sink
from live2diff_trt.runtime.source import Source, open_source
from live2diff_trt.runtime.stream import Stream

PIPE = "-"


def run(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of the bundle.")] = None,
    bundle_option: Annotated[Path | None, typer.Option("--bundle", "-b", help="The same, as an option.")] = None,
    source: Annotated[
        str,
        typer.Option(
            "--input", "-i", help="A file, a folder of pictures, /dev/video0, an address, - (a pipe), test-pattern."
        ),
    ] = "test-pattern:640x360@25,250",
    sink: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="A .mp4, .mkv or .mov file, a folder for PNG files, an address, - (a pipe), or null."
        ),
    ] = "null",
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="What the video should look like. Given again: a blend of all."),
    ] = None,
    weights: Annotated[
        list[float] | None,
        typer.Option("--weight", "-w", help="Share of a prompt in the blend: one for each --prompt, in their order."),
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option("--then", metavar="SECONDS:PROMPT", help="Another prompt from that time on. May be given again."),
    ] = None,
    transition: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long each --then takes; at once if not given.")
    ] = None,
    interpolation: Annotated[
        InterpolationChoice, typer.Option(help="The way between prompts, in blends and transitions.")
    ] = InterpolationChoice.linear,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--similar-image-filter", metavar="COSINE", help="Skip frames like the last one, as of this likeness: 0.98."
        ),
    ] = None,
    maximum_skipped: Annotated[
        int, typer.Option("--max-skipped", help="How many frames that filter skips in a row.")
    ] = SimilarImageFilter.maximum_skipped,
    rewarm_on_cut: Annotated[
        bool, typer.Option("--rewarm-on-cut", help="Begin anew where the source cuts to another scene.")
    ] = False,
    restyle: Annotated[
        Path | None,
        typer.Option(
            help="Weights in the place of the bundle's: what `restyle` wrote, or a bundle that differs in them."
        ),
    ] = None,
    guidance: Annotated[
        GuidanceChoice,
        typer.Option(help="What guidance leads away from: nothing, the negative prompt, or the frame that came in."),
    ] = GuidanceChoice.none,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How far to go from there: 1 is the prompt alone, more goes beyond it.")
    ] = None,
    guidance_delta: Annotated[
        float | None, typer.Option(help="With self and initialize: how much of what it leads away from is believed.")
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="With full and initialize: what should not be seen.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    step_list: Annotated[str | None, typer.Option(help="Denoising steps other than the bundle's, as in 30,40.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="Instead of a step list: as many steps as the bundle has, 1 from pure noise.")
    ] = None,
    pace: Annotated[
        PaceChoice | None,
        typer.Option(
            help="all: every frame, as fast as possible. live: the newest wins. source: every frame when it is due. "
            "live if not given where the source is, else all."
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=0, help="Stop after this many frames.")] = None,
    backend: BackendOption = BackendChoice.auto,
    flavour: FlavourOption = FlavourChoice.auto,
    form: FormOption = FormChoice.in_segments,
    rows: RowsOption = None,
    plans: PlansOption = None,
    device: DeviceOption = 0,
    overlap: Annotated[
        Switch, typer.Option(help="By TensorRT: whether frames enter and are decoded while others are denoised.")
    ] = Switch.on if TensorRTOptions.overlap else Switch.off,
    provider: ProviderOption = ProviderChoice.cpu,
    threads: ThreadsOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
) -> None:
    """Stream a video through a bundle: every frame that goes in comes out once, in order."""
    started = time.perf_counter()
    steps = read_steps(step_list, strength)
    blend = blend_prompts(prompts or [], weights or [], interpolation.value)
    changes = read_changes(then or [])
    turning = None if transition is None else Transition(transition, interpolation=interpolation.value)
    similar = None if threshold is None else SimilarImageFilter(threshold, maximum_skipped)
    guided = read_guidance(guidance.value, guidance_scale, guidance_delta, negative_prompt)
    on_cpu = OnnxRuntimeOptions(provider=provider.value, threads=threads)
    on_gpu = TensorRTOptions(
        flavour=flavour.value,
        form=form.value,
        rows=rows,
        device=device,
        plans=plans,
        overlap=overlap is Switch.on,
    )
    folder = _one_bundle(bundle, bundle_option)
    options = choose_backend(backend, folder, on_cpu, on_gpu, restyled=restyle is not None)
    chosen = _choose_steps(steps, folder)
    with (
        open_source(source) as incoming,
        Stream.open(
            folder,
            prompt=blend,
            seed=seed,
            step_list=chosen,
            similar_image_filter=similar,
            rewarm_on_cut=SceneCut() if rewarm_on_cut else None,
            style=restyle,
            guidance=guided,
            options=options,
        ) as stream,
    ):
        incoming.new_frame = stream.empty_frame
        spec = stream.spec
        outgoing = open_sink(
            sink,
            width=spec.width,
            height=spec.height,
            frame_rate=incoming.frame_rate,
            audio_path=incoming.audio_path,
            overwrite=overwrite,
        )
        total = incoming.frame_count if frames is None else min(frames, incoming.frame_count or frames)
        progress = RunProgress(total, messages)
        paced = _choose_pace(pace, incoming)
        running = PacedRun(incoming, outgoing, paced, progress.note)
        try:
            with progress, running:
                # Where no frame is waited for, the GPU need not wait either.
                ahead = stream.full_ahead if paced == "all" else 0
                followed = follow_changes(islice(running.frames(), frames), changes, turning, stream)
                for finished in stream.run(followed, ahead=ahead):
                    progress.dropped = running.dropped
                    running.deliver(finished)
        finally:
            progress.dropped = running.dropped
            if progress.frames:
                # What is piped on is video and nothing else.
                results = messages if sink == PIPE else output
                results.print(progress.tabulate(spec, progress.started_at - started, incoming.health))


def _choose_steps(steps: StepOptions, bundle: Path) -> tuple[int, ...] | None:
    """Return the step list that is asked for, or None for the bundle's own, which says how many a strength spreads."""
    if steps.strength is None:
        return steps.step_list
    spec = Bundle.open(bundle, files=()).spec
    return steps.choose(spec.step_list, spec.schedule)


def _choose_pace(pace: PaceChoice | None, source: Source) -> Pace:
    if pace is not None:
        return pace.value
    return "live" if source.is_live else "all"


def _one_bundle(argument: Path | None, option: Path | None) -> Path:
    if (argument is None) == (option is None):
        raise SpecError("run needs one bundle", "Name its folder, as in `live2diff-trt run BUNDLE --input clip.mp4`")
    return argument or option or Path()
