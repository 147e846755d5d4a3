"""Where plans lie, and whether what lies there can be trusted.

``<root>/<bundle digest>/<flavour>-<version>-sm<cc>-<options>/`` is complete or absent: it is written under another name
and renamed. It is opened only if its manifest, sizes and hashes agree with what is asked for.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from live2diff_trt import __version__
from live2diff_trt.bundle.cache_folder import cache_root
from live2diff_trt.bundle.manifest import FileRecord, hash_file
from live2diff_trt.bundle.replaced import move_aside, name_beside, rename_folder
from live2diff_trt.engine.arena import Arena
from live2diff_trt.engine.errors import PlanStoreError
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.gpu_facts import GpuFacts
from live2diff_trt.engine.plan import LoadedPlan, Plan, PlanRuntime
from live2diff_trt.engine.plan_manifest import CONSTANTS_FILE, MANIFEST_FILE, PlanKey, PlanManifest
from live2diff_trt.engine.split import UNetSplit

__all__ = ["PlanKey", "PlanStore", "StoredPlans", "generator", "record_files"]
logger = logging.getLogger(__name__)

_ABANDONED_AFTER_SECONDS = 3600
_PUBLISH_ATTEMPTS = 20
"""Of several builders at once, one succeeds in each attempt."""
_HASHING_THREADS = 8  # hashing lets go of the interpreter; three gigabytes take seconds in one thread


@dataclass(frozen=True)
class StoredPlans:
    """A set of plans that was verified when it was opened."""

    folder: Path
    manifest: PlanManifest

    def plan_bytes(self, name: str) -> bytes:
        """Read a plan; raise PlanStoreError if there is none of that name."""
        if name not in self.manifest.plans:
            raise _refusal(self.manifest.key, f"the plans in {self.folder} hold no {name}")
        try:
            return (self.folder / self.manifest.plans[name]).read_bytes()
        except OSError as error:
            raise _refusal(self.manifest.key, f"the plan {name} can't be read any more ({error})") from error

    def load_plan(self, name: str, runtime: PlanRuntime) -> LoadedPlan:
        """Load a plan; raise PlanStoreError if there is none of that name, PlanError if TensorRT refuses it."""
        return runtime.load(name, self.plan_bytes(name), self.manifest.structures[name])

    def reload_plan(self, loaded: LoadedPlan, runtime: PlanRuntime, contexts: Iterable[Plan]) -> None:
        """Let a plan be what is stored here under its name, as ``PlanRuntime.reload`` does.

        Raises:
            PlanStoreError: if there is none of that name; the plan is as it was.
            PlanError: if TensorRT refuses it; the plan is closed then, or its contexts are.
        """
        runtime.reload(loaded, self.plan_bytes(loaded.name), contexts)

    @property
    def store(self) -> PlanStore:
        """The store that they lie in."""
        return PlanStore(self.folder.parents[1])

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(record.bytes for record in self.manifest.files.values())

    @cached_property
    def split(self) -> UNetSplit | None:
        """How the UNet was cut; None in the whole form."""
        return None if self.manifest.split is None else UNetSplit.from_json(dict(self.manifest.split))

    @cached_property
    def arena(self) -> Arena | None:
        """Where tensors lie that cross the cuts, with room for the warm-up's rows; None in the whole form."""
        return None if self.manifest.arena is None else Arena.from_json(dict(self.manifest.arena))

    @cached_property
    def constants(self) -> Mapping[str, NDArray[np.floating]]:
        """What kernels take of the weights, by initialiser; nothing in the whole form."""
        if CONSTANTS_FILE not in self.manifest.files:
            return {}
        with np.load(self.folder / CONSTANTS_FILE, allow_pickle=False) as constants:
            return dict(constants)

    def facts(self, gpu: Gpu) -> GpuFacts:
        """Return what a GPU found out about these plans."""
        return GpuFacts(self.folder, gpu)


class PlanStore:
    """The plans of this machine.

    Args:
        root: the folder that holds them; None takes ``cache_root()``.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_root() if root is None else root

    def folder(self, key: PlanKey) -> Path:
        """Return where plans lie, or would."""
        return self.root / key.bundle_digest[:16] / key.folder_name

    def find(self, bundle_digest: str) -> list[PlanKey]:
        """Return what plans there are of a bundle's own weights, by their manifests alone: no file is hashed."""
        keys = []
        for path in sorted((self.root / bundle_digest[:16]).glob(f"*/{MANIFEST_FILE}")):
            if path.parent.name.startswith("."):
                continue
            try:
                keys.append(_parse(path).key)
            except PlanStoreError as error:
                logger.info("%s", error)
        return [key for key in keys if key.bundle_digest == bundle_digest and not key.style]

    def open(self, key: PlanKey) -> StoredPlans:
        """Verify a set of plans: manifest, sizes, hashes.

        Raises:
            PlanStoreError: if it is missing, truncated, changed, or built from or for something else. It says what
                there is instead, and ends with the command that builds it.
        """
        folder = self.folder(key)
        if not (folder / MANIFEST_FILE).is_file():
            raise _refusal(key, f"there are no plans for {key.describe()} at {folder}{self._describe_others(key)}")
        manifest = _parse(folder / MANIFEST_FILE, key)
        if manifest.key != key:
            raise _refusal(key, f"the plans in {folder} are {_describe_difference(manifest.key, key)}")
        if manifest.generator != generator():
            raise _refusal(key, f"the plans in {folder} were built by {manifest.generator}, this is {generator()}")
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            checks = [pool.submit(_verify_file, folder / name, record, key) for name, record in manifest.files.items()]
        for check in checks:
            check.result()
        return StoredPlans(folder, manifest)

    @contextmanager
    def writing(self, key: PlanKey, *, replace: bool = False) -> Iterator[Path]:
        """Give a private folder that becomes ``folder(key)`` when the block ends well, and vanishes when it does not.

        Several may write the same key at once: each has a folder of its own, and the first that is complete stays.

        Args:
            key: what the plans are for.
            replace: take the place of plans that were there, even if they are valid.

        Raises:
            PlanStoreError: if the folder can't be made or renamed.
        """
        final = self.folder(key)
        self._remove_abandoned(final)
        scratch = name_beside(final, "partial")
        try:
            scratch.mkdir(parents=True)
        except OSError as error:
            raise _not_writable(scratch, error) from error
        try:
            yield scratch
            self._publish(scratch, key, replace)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _publish(self, scratch: Path, key: PlanKey, replace: bool) -> None:
        """Rename to the final name. A folder in its place is kept if it is valid, else moved aside: never mixed."""
        final = self.folder(key)
        for _ in range(_PUBLISH_ATTEMPTS):
            try:
                rename_folder(scratch, final)
            except PermissionError as error:
                raise _not_writable(final, error) from error
            except OSError as error:  # each system has its own for "there is a folder already"
                failure = error
            else:
                return
            if final.exists():
                if not replace and self._is_valid(key):
                    logger.info("%s was built by another process meanwhile; that one stays", final)
                    return
                _remove_folder(final)
        raise _not_writable(final, failure)

    def _is_valid(self, key: PlanKey) -> bool:
        try:
            self.open(key)
        except PlanStoreError:
            return False
        return True

    def _describe_others(self, key: PlanKey) -> str:
        others = [other.describe() for other in self.find(key.bundle_digest)]
        return f"; this bundle has plans for {' and for '.join(others)}" if others else ""

    def _remove_abandoned(self, final: Path) -> None:
        """Remove what builds of this key left behind that were killed."""
        for path in final.parent.glob(f".{final.name}.*"):
            if _seconds_since_change(path) > _ABANDONED_AFTER_SECONDS:
                logger.info("removing %s, which a build left behind", path)
                shutil.rmtree(path, ignore_errors=True)


def generator() -> str:
    """Return what goes into a manifest as its maker."""
    return f"live2diff-trt {__version__}"


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Return size and hash of every file in a folder that is being written."""
    paths = sorted(folder.iterdir())
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        hashes = pool.map(hash_file, paths)
    return {path.name: FileRecord(path.stat().st_size, sha256) for path, sha256 in zip(paths, hashes, strict=True)}


def _parse(path: Path, key: PlanKey | None = None) -> PlanManifest:
    try:
        return PlanManifest.from_text(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refusal(key, f"the manifest {path} can't be used ({str(error).rstrip('.')})") from error


def _verify_file(path: Path, record: FileRecord, key: PlanKey) -> None:
    if not path.is_file():
        raise _refusal(key, f"the plans lack {path}")
    try:
        _compare_file(path, record, key)
    except OSError as error:
        raise _refusal(key, f"{path} can't be read ({error})") from error


def _compare_file(path: Path, record: FileRecord, key: PlanKey) -> None:
    size = path.stat().st_size
    if size != record.bytes:
        raise _refusal(key, f"{path} has {size} bytes, its manifest says {record.bytes}: it is truncated or foreign")
    if hash_file(path) != record.sha256:
        raise _refusal(key, f"{path} does not have the hash its manifest records: it was changed")


def _describe_difference(found: PlanKey, wanted: PlanKey) -> str:
    """Return in words what plans are for, that are not what was asked for."""
    if found.bundle_digest != wanted.bundle_digest:
        return f"of another bundle ({found.bundle_digest[:16]}, not {wanted.bundle_digest[:16]})"
    return f"for {found.describe()}, not for {wanted.describe()}"


def _refusal(key: PlanKey | None, problem: str) -> PlanStoreError:
    if key is not None and key.style:
        return PlanStoreError(problem, "Set the style again: they are then built anew")
    command = "live2diff-trt build BUNDLE" if key is None else key.build_command
    return PlanStoreError(problem, f"Build them again with `{command}`")


def _not_writable(path: Path, error: OSError) -> PlanStoreError:
    return PlanStoreError(
        f"{path} can't be written ({error})",
        "Close what uses it, free space, or choose another folder with --plans or LIVE2DIFF_TRT_CACHE",
    )


def _remove_folder(folder: Path) -> None:
    """Take a folder away at once: it is renamed first, because no system replaces a folder that holds files."""
    try:
        aside = move_aside(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _seconds_since_change(folder: Path) -> float:
    """Return the age of the newest file, so that a slow build is not taken for a dead one."""
    try:
        newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except (FileNotFoundError, PermissionError):  # its owner is at work; what is on its way out is denied on Windows
        return 0.0
    return time.time() - newest
