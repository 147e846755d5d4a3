"""The results of one GPU on one day: ``benchmarks/results/<gpu>-<date>.json``. Plots and tables read these alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.record import command_line, describe_machine, read_clocks, today
from live2diff_trt.benchmarks.timing import MeasurementError, percentiles
from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.bundle.json_file import write_json

RESULTS_FOLDER = Path("benchmarks/results")
"""From the repository's root."""

_NAME = re.compile(
    r"unet_tick|frame|frame_latency|frame_latency_beyond|(stage|kernel|startup|memory|quality|control)/[a-z0-9_.-]+"
)
_CONTENTS = {"environment", "command", "entries"}
_ENVIRONMENT = {
    *("processor", "cores", "gpu", "system", "python", "live2diff-trt", "versions"),
    *("date", "clocks_before", "clocks_after"),
}


class ResultsError(Live2DiffError):
    """A results file is missing, damaged or of another format, or does not hold what was asked of it."""


class EntryKey(NamedTuple):
    """What tells an entry of a file from its others: two files' entries of one key measure the same."""

    name: str
    backend: str
    form: str | None
    steps: int | None
    height: int | None
    width: int | None
    dtype: str | None
    autoencoder: str | None
    depth: str | None


@dataclass(frozen=True)
class Entry:
    """One figure of one backend.

    Attributes:
        name: ``unet_tick``; ``frame``, the interval between finished frames at saturation; ``frame_latency``, from a
            frame's arrival until it is delivered; ``frame_latency_beyond``, without the T − 1 ticks that it has to
            wait for; or what comes after ``stage/``, ``kernel/``, ``startup/``, ``memory/``, ``quality/`` or
            ``control/``.
        backend: who did the work, as in ``tensorrt-rtx`` or ``torch-graph``.
        form: in which form, as in ``split``; None where the backend has one only.
        steps, height, width, dtype: T, pixels and floating-point type of the stream; None where there was no stream.
        p50_ms, p99_ms: of the samples; None where nothing was timed (``memory/…``, ``quality/…``): then the figure is
            in ``notes``.
        samples: how many.
        checked_error: largest deviation from the reference result of the run that was timed; None: not checked.
        notes: whatever else is needed to read the figure, JSON values, with units in the names: the kinds of
            ``autoencoder`` and ``depth`` network; what is counted (``tflop``, ``cache_bytes``,
            ``bytes_read_and_written``).
        raw_ms: every sample, rounded to 4 digits.

    Raises:
        MeasurementError: the name is not one of these, or the error is not finite.
    """

    name: str
    backend: str
    form: str | None
    steps: int | None
    height: int | None
    width: int | None
    dtype: str | None
    p50_ms: float | None
    p99_ms: float | None
    samples: int
    checked_error: float | None
    notes: dict[str, Any] = field(default_factory=dict)
    raw_ms: list[float] = field(default_factory=list)

    @property
    def key(self) -> EntryKey:
        """What is measured, without the figures."""
        return EntryKey(
            self.name,
            self.backend,
            self.form,
            self.steps,
            self.height,
            self.width,
            self.dtype,
            self.notes.get("autoencoder"),
            self.notes.get("depth"),
        )

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise MeasurementError(
                f"no entry is called {self.name!r}",
                "Use unet_tick, frame, frame_latency, frame_latency_beyond, or stage/, kernel/, startup/, memory/, "
                "quality/ or control/ and a lower-case name",
            )
        if self.checked_error is not None and not math.isfinite(self.checked_error):
            raise MeasurementError(
                f"{self.name} of {self.backend} computed what is not a number", "Mend the backend before timing it"
            )


@dataclass(frozen=True)
class Results:
    """What a results file holds.

    Attributes:
        file_name: of the file it was read from.
        environment: machine, GPU, versions, date and clocks, as ``ResultsFile`` writes them.
        command: the one that was run.
        entries: in the order in which they were measured; no two have the same key.
    """

    file_name: str
    environment: Mapping[str, Any]
    command: str
    entries: tuple[Entry, ...]

    @property
    def date(self) -> str:
        """The day of the run in UTC, as in ``2026-11-23``."""
        return str(self.environment["date"])

    @property
    def device(self) -> str:
        """Name of the GPU; of the processor where there was none."""
        return device_name(self.environment)

    @property
    def not_run(self) -> Mapping[str, str]:
        """What was asked for and not measured, and why."""
        return self.environment.get("not_run", {})


def read_results(path: Path) -> Results:
    """Read what ``ResultsFile.write`` wrote.

    Raises:
        ResultsError: the file can't be read, is of another format, or holds an entry twice.
        MeasurementError: an entry has a name or an error that ``Entry`` refuses.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} can't be read: {error}", "Name a JSON file that `bench suite` wrote") from error
    if not _is_results(contents):
        raise _of_another_format(path)
    entries = tuple(read_entry(path, entry) for entry in contents["entries"])
    keys = [entry.key for entry in entries]
    for key in keys:
        if keys.count(key) > 1:
            raise ResultsError(f"{path} holds {key.name} of {key.backend} twice", "Measure again")
    return Results(path.name, contents["environment"], contents["command"], entries)


def _is_results(contents: object) -> bool:
    return (
        isinstance(contents, dict)
        and set(contents) == _CONTENTS
        and isinstance(contents["entries"], list)
        and isinstance(contents["environment"], dict)
        and contents["environment"].keys() >= _ENVIRONMENT
    )


def read_entry(path: Path, entry: object) -> Entry:
    """Return an entry as it was written to a file, which errors name; raise ResultsError or MeasurementError."""
    if not isinstance(entry, dict) or set(entry) != {column.name for column in fields(Entry)}:
        raise _of_another_format(path)
    if entry["p50_ms"] is not None and not (isinstance(entry["p50_ms"], float | int) and entry["p50_ms"] > 0):
        raise ResultsError(f"{path}: {entry['name']} took {entry['p50_ms']!r} ms, which is no time", "Measure again")
    return Entry(**entry)


def _of_another_format(path: Path) -> ResultsError:
    return ResultsError(
        f"{path} is not a results file, or of another format", "Name a JSON file that `bench suite` wrote"
    )


class ResultsFile:
    """Gathers entries and writes them. The machine is looked at when it is made, the clocks again when it is written.

    Attributes:
        entries: in the order in which they were added.
        not_run: what was asked for and not measured, and why.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.not_run: dict[str, str] = {}
        self._machine = describe_machine()
        self._date = today()
        self._clocks_before = read_clocks()

    @property
    def file_name(self) -> str:
        """``<gpu>-<date>.json``; the processor's name stands in where there is no GPU."""
        return f"{slug(device_name(self._machine))}-{self._date}.json"

    def add_samples(
        self,
        name: str,
        backend: str,
        form: str | None,
        point: Point | None,
        samples_ms: Sequence[float],
        checked_error: float | None = None,
        **notes: Any,
    ) -> Entry:
        """Add what was timed, and return it; raise MeasurementError where ``Entry`` or ``percentiles`` does."""
        middle, late = percentiles(samples_ms)
        return self._add(
            name,
            backend,
            form,
            point,
            notes,
            p50_ms=round(middle, 4),
            p99_ms=round(late, 4),
            samples=len(samples_ms),
            checked_error=checked_error,
            raw_ms=[round(float(sample), 4) for sample in samples_ms],
        )

    def add_figure(self, name: str, backend: str, form: str | None, point: Point | None, **notes: Any) -> Entry:
        """Add what was not timed, bytes for example, and return it; raise MeasurementError where ``Entry`` does."""
        return self._add(
            name, backend, form, point, notes, p50_ms=None, p99_ms=None, samples=0, checked_error=None, raw_ms=[]
        )

    def _add(
        self, name: str, backend: str, form: str | None, point: Point | None, notes: dict[str, Any], **figures: Any
    ) -> Entry:
        stream, networks = _describe_point(point)
        entry = Entry(name, backend, form, **stream, **figures, notes={**networks, **notes})
        self.entries.append(entry)
        return entry

    def write(self, folder: Path = RESULTS_FOLDER) -> Path:
        """Write all entries in one go and return the file's path. The file of the same GPU and day is replaced."""
        environment = {
            **self._machine,
            "date": self._date,
            "clocks_before": self._clocks_before,
            "clocks_after": read_clocks(),
            "not_run": self.not_run,
        }
        contents = {
            "environment": environment,
            "command": command_line(),
            "entries": [asdict(entry) for entry in self.entries],
        }
        path = folder / self.file_name
        write_json(path, contents)
        return path


def device_name(environment: Mapping[str, Any]) -> str:
    """Return the GPU's name of what ``describe_machine`` returned; the processor's where there is none."""
    gpu = environment["gpu"]
    return str(gpu["name"] if gpu else environment["processor"])


def slug(device: str) -> str:
    """Return a name that may stand in a file's: ``NVIDIA H200`` → ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def _describe_point(point: Point | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an entry's columns and notes that say what was streamed."""
    if point is None:
        return dict.fromkeys(("steps", "height", "width", "dtype")), {}
    stream = {"steps": point.steps, "height": point.height, "width": point.width, "dtype": point.dtype}
    return stream, {"autoencoder": point.autoencoder, "depth": point.depth}
