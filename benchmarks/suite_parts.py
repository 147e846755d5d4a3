"""Parts of a run, each written as it ends: what was interrupted goes on where it was, and nothing else is mixed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from live2diff_trt.benchmarks.record import describe_machine
from live2diff_trt.benchmarks.results_file import Entry, ResultsFile, read_entry
from live2diff_trt.bundle.json_file import write_json

ROOMS = ("bundle", "model", "export", "engine", "kernels", "runtime", "evaluation", "conformance", "cli", "benchmarks")
WHAT_PLANS_ARE_MADE_BY = ("bundle", "model", "export", "engine")
_SOURCES = (".py", ".cu", ".cuh")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Part:
    """What one process measured. It is written anew behind each of the things that it measures.

    Attributes:
        fingerprint: of the run it belongs to.
        measured: names of ``measures.MEASURES`` that are complete.
        entries: in the order in which they were measured.
        not_run: what was asked for and not measured, and why.
    """

    fingerprint: str
    measured: tuple[str, ...]
    entries: tuple[Entry, ...]
    not_run: dict[str, str]


def write_part(path: Path, fingerprint: str, measured: Sequence[str], results: ResultsFile) -> None:
    """Write what was gathered so far as a part: all of it, or nothing."""
    part = {
        "fingerprint": fingerprint,
        "measured": list(measured),
        "entries": [asdict(entry) for entry in results.entries],
        "not_run": results.not_run,
    }
    write_json(path, part)


def read_part(path: Path, fingerprint: str) -> Part | None:
    """Return a part; None where there is none, or one of another run."""
    if not path.is_file():
        return None
    contents = json.loads(path.read_text(encoding="utf-8"))
    if contents["fingerprint"] != fingerprint:
        return None
    entries = tuple(read_entry(path, entry) for entry in contents["entries"])
    return Part(fingerprint, tuple(contents["measured"]), entries, contents["not_run"])


def fingerprint_run(settings: object) -> str:
    """Return what parts must have in common to belong to one run: code, settings, and the machine since it started."""
    boot = _BOOT_ID.read_text(encoding="utf-8") if _BOOT_ID.is_file() else ""
    described = json.dumps([settings, describe_machine(), boot], sort_keys=True)
    return _hash([hash_sources(ROOMS).encode(), described.encode()])


def hash_sources(rooms: Iterable[str]) -> str:
    """Return a hash of the code in some of our folders."""
    return _hash(path.name.encode() + path.read_bytes() for room in rooms for path in _list_sources(room))


def _list_sources(room: str) -> list[Path]:
    found = find_spec(f"live2diff_trt.{room}")
    folders = [] if found is None else found.submodule_search_locations or []
    return sorted(path for folder in folders for path in Path(folder).iterdir() if path.suffix in _SOURCES)


def _hash(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(hashlib.sha256(piece).digest())
    return digest.hexdigest()[:16]
