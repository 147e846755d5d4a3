"""``live2diff-trt bench``: measures a machine, compares two results, and writes the performance page.

Whatever measures or draws is imported by the command that needs it: this file is part of every command line.
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from live2diff_trt.cli.backend_options import PlansOption
from live2diff_trt.cli.bench_extras import missing
from live2diff_trt.cli.bench_live import soak, visits
from live2diff_trt.cli.bench_output import print_results, show_comparison
from live2diff_trt.cli.console import messages, output, read_size
from live2diff_trt.cli.export import PresetChoice

if TYPE_CHECKING:
    from live2diff_trt.benchmarks.results_file import ResultsFile

_RESULTS = Path("benchmarks/results")
_EXTRAS = "bench,cuda,export,onnxruntime"

bench = typer.Typer(help="Measure a machine, compare two results, write the performance page.", no_args_is_help=True)

BundleArgument = Annotated[Path, typer.Argument(help="Folder of the bundle; its weights random.")]
RowsOption = Annotated[str | None, typer.Option("--backends", help="Backends, with commas between; all.")]
SamplesOption = Annotated[int, typer.Option(min=1, help="Samples of each figure.")]
AutoencoderOption = Annotated[str | None, typer.Option(help="The bundle's autoencoder, if it is not its preset's.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder to write a results file to.")]


@bench.command()
def suite(
    work: Annotated[Path, typer.Option(help="Folder of bundles, plans and parts; what was interrupted goes on there.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = _RESULTS,
    preset: Annotated[PresetChoice | None, typer.Option(help="Of the base point; tiny without a GPU.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the base point.")] = None,
    axes: Annotated[
        str, typer.Option(help="Which points: base, and away from it steps, sizes, autoencoder, depth.")
    ] = "base,steps,sizes,autoencoder,depth",
    backends: RowsOption = None,
    samples: SamplesOption = 200,
    ticks: Annotated[int, typer.Option(min=2, help="Ticks in a row, of which the steadiness is told.")] = 2000,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that prepare at a time.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="How many there are, all alike: points share them, one each.")] = 1,
    clip: Annotated[Path | None, typer.Option(help="A real video, for --quality.")] = None,
    quality: Annotated[
        list[str] | None, typer.Option(help="NAME:FIELD=VALUE,…: options of TensorRT to compare with the usual ones.")
    ] = None,
) -> None:
    """Measure the base point with every backend, then one axis at a time; exit 1 if something failed."""
    try:
        from live2diff_trt.benchmarks.suite import run_suite
        from live2diff_trt.benchmarks.suite_options import choose_options
    except ImportError as error:
        raise missing(error, _EXTRAS) from error
    options, gpu = choose_options(
        work,
        out,
        preset=None if preset is None else preset.value,
        size=None if size is None else read_size(size),
        axes=_split(axes),
        rows=None if backends is None else _split(backends),
        samples=samples,
        steady_ticks=ticks,
        jobs=jobs,
        gpus=gpus,
        clip=clip,
        quality=tuple(quality or ()),
    )
    began = time.perf_counter()

    def show(what: str) -> None:
        messages.print(f"[dim]{time.perf_counter() - began:6.1f} s[/]  {escape(what)}", highlight=False, soft_wrap=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a time limit ends its processes too
    outcome = run_suite(options, gpu, show=show)
    print_results(outcome.results)
    output.print(str(outcome.path), soft_wrap=True, highlight=False)
    if outcome.failed:
        raise typer.Exit(1)


@bench.command()
def unet(
    bundle: BundleArgument,
    plans: PlansOption = None,
    backends: RowsOption = None,
    samples: SamplesOption = 200,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Measure one tick of the UNet, every backend on the same inputs, in turns."""
    _measure_bundle(("limits", "unet"), bundle, plans, backends, samples, autoencoder, out)


@bench.command()
def frame(
    bundle: BundleArgument,
    plans: PlansOption = None,
    backends: RowsOption = None,
    samples: SamplesOption = 200,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Measure whole frames, from uint8 in host memory to uint8 in host memory: how many, and how late."""
    _measure_bundle(("limits", "frame", "latency"), bundle, plans, backends, samples, autoencoder, out)


@bench.command()
def stages(
    bundle: BundleArgument,
    plans: PlansOption = None,
    backends: RowsOption = None,
    samples: SamplesOption = 200,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Measure where a tick's time goes, the host's time and warm-up."""
    _measure_bundle(("limits", "stages"), bundle, plans, backends, samples, autoencoder, out)


@bench.command()
def kernels(
    bundle: BundleArgument,
    plans: PlansOption = None,
    samples: SamplesOption = 200,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Measure our own kernels against the rate of copying. Needs a GPU and plans in the split form."""
    _measure_bundle(("limits", "kernels"), bundle, plans, "tensorrt-split", samples, autoencoder, out)


@bench.command()
def memory(
    bundle: BundleArgument,
    plans: PlansOption = None,
    backends: RowsOption = None,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Measure what a session takes of the GPU's memory, beside the estimate of it."""
    _measure_bundle(("memory",), bundle, plans, backends, 1, autoencoder, out)


@bench.command()
def controls(
    bundle: BundleArgument,
    plans: PlansOption = None,
    backends: RowsOption = "onnxruntime,tensorrt-split,tensorrt-overlap",
    ticks: Annotated[int, typer.Option(min=2, help="Ticks of each part of the run.")] = 24,
    style: Annotated[
        Path | None,
        typer.Option(help="A style to change to; all of TensorRT's backends but tensorrt-refittable build it first."),
    ] = None,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Use every control in one run: how long each call takes, which ticks wait for it, and how long."""
    _measure_bundle(("controls",), bundle, plans, backends, ticks, autoencoder, out, style)


@bench.command()
def startup(
    preset: Annotated[PresetChoice | None, typer.Option(help="What is exported; tiny without a GPU.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT.")] = None,
    out: OutOption = None,
) -> None:
    """Measure export, build, first opening and restart, each in a process of its own. Makes 3 GB and removes them."""
    try:
        from live2diff_trt.benchmarks.measures import Extent, measure
        from live2diff_trt.benchmarks.opened_rows import Place
        from live2diff_trt.benchmarks.results_file import ResultsFile
        from live2diff_trt.benchmarks.suite_options import choose_base
    except ImportError as error:
        raise missing(error, _EXTRAS) from error
    base, gpu = choose_base(
        None if preset is None else preset.value,
        None if size is None else read_size(size),
    )
    results = ResultsFile()
    with tempfile.TemporaryDirectory(prefix="live2diff-bench-") as scratch:
        place = Place(Path(scratch) / "bundle", Path(scratch) / "plans", gpu)
        measure(results, base, place, ("tensorrt-split",), ("startup",), Extent())
    _finish(results, out)


@bench.command()
def quality(
    bundle: BundleArgument,
    clip: Annotated[Path, typer.Option(help="A real video.")],
    option: Annotated[
        list[str], typer.Option(help="NAME:FIELD=VALUE,…: what is compared, by the fields of the backend's options.")
    ],
    baseline: Annotated[str, typer.Option(help="FIELD=VALUE,…: what it is compared with.")] = "",
    prompt: Annotated[str, typer.Option(help="Of both.")] = "a watercolour painting",
    frames: Annotated[int, typer.Option(min=1, help="How many of the clip.")] = 100,
    plans: PlansOption = None,
    autoencoder: AutoencoderOption = None,
    out: OutOption = None,
) -> None:
    """Compare the pictures of one way of running a bundle with those of another: PSNR and SSIM on a real clip."""
    try:
        from live2diff_trt.benchmarks.bench_quality import measure_quality, read_named_options, read_options
        from live2diff_trt.benchmarks.point import read_point
        from live2diff_trt.benchmarks.results_file import ResultsFile
    except ImportError as error:
        raise missing(error, _EXTRAS) from error
    from live2diff_trt.bundle.manifest import Bundle

    results = ResultsFile()
    point = read_point(Bundle.open(bundle, ()), autoencoder)
    options = dict(read_named_options(one) for one in option)
    usual = read_options(baseline)
    measure_quality(results, point, bundle, plans, clip, usual, options, prompt=prompt, frames=frames)
    _finish(results, out)


bench.command()(soak)
bench.command()(visits)


@bench.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Results of before.", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="Results of after.", metavar="B.json")],
    threshold: Annotated[float, typer.Option(min=0, help="How much slower B may be: 0.05 is 5 %.")] = 0.05,
) -> None:
    """Compare the medians of two results; exit 1 if B is slower than A by more than the threshold."""
    from live2diff_trt.benchmarks.compare import compare as compare_results
    from live2diff_trt.benchmarks.results_file import read_results

    comparison = compare_results(read_results(a), read_results(b))
    show_comparison(comparison, (a.name, b.name), threshold)
    if comparison.regressions(threshold):
        raise typer.Exit(1)


@bench.command()
def page(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Results to show; those of --folder.", metavar="RESULTS.json"),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder of results: the newest of each GPU is shown.")] = _RESULTS,
    docs: Annotated[Path, typer.Option(help="Folder the page and its plots are written to.")] = Path("docs"),
    speed_log: Annotated[Path, typer.Option(help="JSON file of what was tried for speed, shown too.")] = Path(
        "benchmarks/speed_log.json"
    ),
    readme: Annotated[
        Path | None, typer.Option(help="File with a place for a table of the newest of these results, written too.")
    ] = None,
) -> None:
    """Write performance.md and its plots from the newest results of each machine. Run it in the repository's root."""
    from live2diff_trt.benchmarks.performance_page import find_newest, keep_newest, write_page
    from live2diff_trt.benchmarks.readme_table import write_readme
    from live2diff_trt.benchmarks.results_file import read_results
    from live2diff_trt.benchmarks.speed_log import read_speed_log

    found = keep_newest([read_results(path) for path in results]) if results else find_newest(folder)
    try:
        written = write_page(found, read_speed_log(speed_log), docs)
    except ImportError as error:
        raise missing(error, "bench") from error
    if readme is not None:
        write_readme(found, readme)
    output.print(str(written), soft_wrap=True, highlight=False)


def _measure_bundle(
    what: tuple[str, ...],
    bundle: Path,
    plans: Path | None,
    backends: str | None,
    samples: int,
    autoencoder: str | None,
    out: Path | None,
    style: Path | None = None,
) -> None:
    """Measure one thing of one bundle on this machine; print what was measured, and write it where that is asked."""
    try:
        from live2diff_trt.benchmarks.measures import Extent, measure
        from live2diff_trt.benchmarks.opened_rows import Place
        from live2diff_trt.benchmarks.point import read_point
        from live2diff_trt.benchmarks.results_file import ResultsFile
        from live2diff_trt.benchmarks.rows import ROWS, find_gpu
    except ImportError as error:
        raise missing(error, _EXTRAS) from error
    from live2diff_trt.bundle.manifest import Bundle

    point = read_point(Bundle.open(bundle, ()), autoencoder)
    results = ResultsFile()
    rows = ROWS if backends is None else _split(backends)
    measure(results, point, Place(bundle, plans, find_gpu()), rows, what, Extent(samples, style=style))
    _finish(results, out)


def _finish(results: ResultsFile, out: Path | None) -> None:
    print_results(results)
    if out is not None:
        output.print(str(results.write(out)), soft_wrap=True, highlight=False)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
