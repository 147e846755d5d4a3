"""The imitation of Windows refuses what Windows does, and nothing else."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.windows_files import is_possible_name, used_in

pytestmark = pytest.mark.usefixtures("windows_files")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(8192))
    return path


def test_what_nobody_uses_is_replaced_renamed_and_deleted(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"other")
    (tmp_path / "other.bin").replace(file)
    assert file.read_bytes() == b"other"
    file.parent.rename(tmp_path / "renamed")
    (tmp_path / "renamed" / "file.bin").unlink()
    (tmp_path / "renamed").rmdir()
    with tempfile.TemporaryDirectory(dir=tmp_path) as scratch:
        (Path(scratch) / "deeper").mkdir()
        (Path(scratch) / "deeper" / "file.bin").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def refuse_everything(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"other")
    assert used_in(tmp_path) == ["file.bin"]
    with pytest.raises(PermissionError, match="being used by another process"):
        (tmp_path / "other.bin").replace(file)
    with pytest.raises(PermissionError, match="being used"):
        file.replace(tmp_path / "other.bin")
    with pytest.raises(PermissionError, match="being used"):
        file.rename(tmp_path / "renamed.bin")
    with pytest.raises(PermissionError, match="being used"):
        file.unlink()
    with pytest.raises(PermissionError, match="Access is denied"):
        file.parent.rename(tmp_path / "renamed")
    with pytest.raises(PermissionError, match="being used"):
        shutil.rmtree(file.parent)
    assert file.stat().st_size == 8192


def test_an_open_file_stays(file: Path, tmp_path: Path) -> None:
    with file.open("rb"):
        refuse_everything(file, tmp_path)
    file.unlink()


def test_a_file_that_is_open_by_another_name_stays(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    with (tmp_path / "link" / "file.bin").open("rb"), pytest.raises(PermissionError):
        file.unlink()


def test_a_mapped_file_stays_even_if_it_was_closed(file: Path, tmp_path: Path) -> None:
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    refuse_everything(file, tmp_path)
    mapped.close()
    file.unlink()


def test_a_view_keeps_a_file_mapped(file: Path) -> None:
    part = np.memmap(file, np.uint8, "r")[16:32].view(np.float32)
    with pytest.raises(PermissionError):
        file.unlink()
    del part
    file.unlink()


def test_a_name_that_is_taken_is_refused_by_a_renaming(file: Path, tmp_path: Path) -> None:
    for name in ("other", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "file.bin").write_bytes(b"other")
    for target in ("other", "empty"):
        with pytest.raises(FileExistsError, match="already exists"):
            file.parent.rename(tmp_path / target)
        with pytest.raises(PermissionError):
            file.parent.replace(tmp_path / target)
    with pytest.raises(FileExistsError):
        file.rename(tmp_path / "other" / "file.bin")


def test_what_is_read_only_is_not_deleted(file: Path) -> None:
    file.chmod(0o444)
    with pytest.raises(PermissionError):
        file.unlink()


@pytest.mark.parametrize("name", ["con", "NUL.txt", "com1", "a:b", "what?", "a*", "dot.", "space ", "tab\t", 'q"'])
def test_names_that_mean_something_else_are_refused(tmp_path: Path, name: str) -> None:
    assert not is_possible_name(name)
    with pytest.raises(OSError, match="syntax is incorrect"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="syntax is incorrect"):
        (tmp_path / "file").replace(tmp_path / name)


def test_ordinary_names_are_possible() -> None:
    names = [".hidden.1-ab.partial", "console", "frame-000001.png", "measured-nvidia-h100-580.65.06.cache", "ä ü"]
    assert all(map(is_possible_name, names))
