"""Files and folders are there complete, or as they were: on Linux and by the rules of Windows."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from live2diff_trt.bundle import replaced
from live2diff_trt.bundle.errors import NotWritableError
from live2diff_trt.bundle.json_file import write_json
from live2diff_trt.bundle.replaced import move_aside, rename_folder, replacing_file
from tests.windows_files import is_possible_name

pytestmark = pytest.mark.usefixtures("windows_files")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, "RENAME_PAUSE_SECONDS", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    return tmp_path / "folder"


def test_a_file_takes_the_place_of_another(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        with replacing_file(tmp_path / "file") as scratch:
            assert scratch.parent == tmp_path  # another drive could not be renamed from
            assert is_possible_name(scratch.name)
            scratch.write_bytes(content)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


def test_what_fails_leaves_the_old_file(folder: Path) -> None:
    def write_half() -> None:
        with replacing_file(folder / "file") as scratch:
            scratch.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [path.read_bytes() for path in folder.iterdir()] == [b"old"]


def test_a_file_in_use_stays(folder: Path) -> None:
    with (folder / "file").open("rb"):
        with pytest.raises(PermissionError, match="being used"), replacing_file(folder / "file") as scratch:
            scratch.write_bytes(b"new")
        assert [path.read_bytes() for path in folder.iterdir()] == [b"old"]


def test_what_is_still_open_does_not_take_its_place(folder: Path) -> None:
    def forget_to_close(open_files: ExitStack) -> None:
        with replacing_file(folder / "file") as scratch:
            open_files.enter_context(scratch.open("wb"))

    with ExitStack() as open_files, pytest.raises(PermissionError, match="being used"):
        forget_to_close(open_files)
    assert (folder / "file").read_bytes() == b"old"


def test_two_that_write_at_once_do_not_mix(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "file") as first, replacing_file(tmp_path / "file") as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_a_folder_moves_as_a_whole(folder: Path) -> None:
    aside = move_aside(folder)
    assert aside is not None
    assert not folder.exists()
    assert (aside / "file").read_bytes() == b"old"
    assert move_aside(folder) is None


@pytest.mark.usefixtures("at_once")
def test_a_folder_with_a_file_in_use_stays_as_a_whole(folder: Path) -> None:
    with (folder / "file").open("rb"), pytest.raises(PermissionError):
        move_aside(folder)
    assert (folder / "file").read_bytes() == b"old"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_file_that_is_open_for_a_moment_is_waited_for(folder: Path) -> None:
    """As new files are, to a scanner of viruses."""
    stream = (folder / "file").open("rb")
    threading.Timer(0.25, stream.close).start()
    started = time.monotonic()
    rename_folder(folder, folder.with_name("renamed"))
    assert time.monotonic() - started >= 0.2
    assert (folder.with_name("renamed") / "file").read_bytes() == b"old"


def test_a_name_that_is_taken_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, "RENAME_PAUSE_SECONDS", 1000)
    folder.with_name("taken").mkdir()
    with pytest.raises(FileExistsError):
        rename_folder(folder, folder.with_name("taken"))


def test_json_is_written_with_the_same_bytes_everywhere(tmp_path: Path) -> None:
    write_json(tmp_path / "deeper" / "found.json", {"a": 1, "b": "ä"})
    assert (tmp_path / "deeper" / "found.json").read_bytes() == b'{\n "a": 1,\n "b": "\\u00e4"\n}\n'


def test_json_that_someone_reads_stays_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    with (
        path.open("rb"),
        pytest.raises(NotWritableError, match=r"found\.json can't be written .*Close what has it open"),
    ):
        write_json(path, {"a": 2})
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("found.json", before)]
    with pytest.raises(NotWritableError, match="choose another place"):
        write_json(path / "below a file" / "found.json", {})


def test_json_beside_another_of_the_same_stem_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "found.partial").write_text("a person's")
    write_json(tmp_path / "found.json", {})
    assert (tmp_path / "found.partial").read_text() == "a person's"
