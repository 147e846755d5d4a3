"""What Windows refuses to do with files, imitated on Linux.

There a file that anyone has open or mapped is neither deleted nor renamed, and no other takes its place; a folder
that holds one is not renamed. (It could be, if whoever opened it had agreed; Python and FFmpeg do not.) What this
process has open is read from /proc when it is asked for, whatever opened it.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

Name = str | os.PathLike[str]

_FORBIDDEN = '<>:"|?*'
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_IN_USE = "The process cannot access the file because it is being used by another process"
_PATHS_AT = 5
"""The column of /proc/self/maps in which a mapped file stands."""


def used_files() -> set[Path]:
    """Return every file that this process has open or mapped."""
    return {path for path in (*_opened(), *_mapped()) if path.is_file()}


def used_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, or below it, that are in use."""
    whole = folder.resolve()
    return sorted(path.name for path in used_files() if path.is_relative_to(whole))


def is_possible_name(name: str) -> bool:
    """Whether a file or folder can have that name."""
    plain = not any(letter in _FORBIDDEN or ord(letter) < 32 for letter in name)
    return plain and not name.endswith((".", " ")) and name.partition(".")[0].strip().lower() not in _DEVICES


def imitate_windows_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``os``, and so ``pathlib``, ``shutil`` and ``tempfile``, refuse what Windows does, until the test ends."""
    refusing = {
        "unlink": _refusing_delete(os.unlink),
        "remove": _refusing_delete(os.remove),
        "rename": _refusing_rename(os.rename),
        "replace": _refusing_replace(os.replace),
        "mkdir": _refusing_mkdir(os.mkdir),
    }
    accessor = getattr(pathlib, "_NormalAccessor", None)  # of Python 3.10, which has functions of its own
    for name, function in refusing.items():
        monkeypatch.setattr(os, name, function)
        if hasattr(accessor, name):
            monkeypatch.setattr(accessor, name, staticmethod(function))
    monkeypatch.setattr(shutil, "_use_fd_functions", False)  # as there: it then goes by whole paths


def _opened() -> Iterator[Path]:
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            yield descriptor.readlink()


def _mapped() -> Iterator[Path]:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        columns = line.split(maxsplit=_PATHS_AT)
        if len(columns) > _PATHS_AT:
            yield Path(columns[_PATHS_AT])


def _refuse_use(path: Path) -> None:
    """Raise PermissionError if a file, or one in a folder, is in use."""
    if path.is_dir() and used_in(path):
        raise PermissionError(errno.EACCES, "Access is denied", str(path))
    if path.resolve() in used_files():
        raise PermissionError(errno.EACCES, _IN_USE, str(path))


def _refuse_name(path: Path) -> None:
    if not is_possible_name(path.name):
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", str(path))


def _refusing_delete(delete: Callable[..., None]) -> Callable[..., None]:
    def refusing(path: Name, **options: int | None) -> None:
        found = Path(path)
        _refuse_use(found)
        if found.exists() and not found.stat().st_mode & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, "Access is denied", str(path))
        delete(path, **options)

    return refusing


def _refusing_rename(rename: Callable[..., None]) -> Callable[[Name, Name], None]:
    def refusing(source: Name, target: Name) -> None:
        _refuse_use(Path(source))
        _refuse_name(Path(target))
        if Path(target).exists():
            message = "Cannot create a file when that file already exists"
            raise FileExistsError(errno.EEXIST, message, str(source), None, str(target))
        rename(source, target)

    return refusing


def _refusing_replace(replace: Callable[..., None]) -> Callable[[Name, Name], None]:
    def refusing(source: Name, target: Name) -> None:
        _refuse_use(Path(source))
        _refuse_name(Path(target))
        if Path(target).is_dir():
            raise PermissionError(errno.EACCES, "Access is denied", str(source), None, str(target))
        _refuse_use(Path(target))
        replace(source, target)

    return refusing


def _refusing_mkdir(mkdir: Callable[..., None]) -> Callable[..., None]:
    def refusing(path: Name, mode: int = 0o777) -> None:
        _refuse_name(Path(path))
        mkdir(path, mode)

    return refusing
