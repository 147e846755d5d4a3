"""A style's file: what is written is read back, and what was changed is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from live2diff_trt.bundle.errors import OutputExistsError, RestyleError
from live2diff_trt.bundle.style_delta import FORMAT, StyleDelta, read_style_delta, write_style_delta
from tests.windows_files import used_in

VALUES: dict[str, NDArray[Any]] = {
    "a.weight": np.arange(6, dtype=np.float16).reshape(2, 3),
    "b.bias": np.array([1.5, -0.0, np.nan], np.float32),
}
DELTA = StyleDelta(VALUES, "0123", "{}, in ink", {"unet": {"source": "random", "seed": 1}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_style_delta(tmp_path / "ink.safetensors", DELTA)
    return tmp_path / "ink.safetensors"


def test_what_is_written_is_read_back(file: Path) -> None:
    found = read_style_delta(file)
    assert (found.bundle_digest, found.prompt_template, found.sources) == ("0123", "{}, in ink", DELTA.sources)
    assert found.values.keys() == VALUES.keys()
    assert all(found.values[name].tobytes() == values.tobytes() for name, values in VALUES.items())
    assert len(found.identity) == 64
    assert list(file.parent.iterdir()) == [file]


def test_a_style_of_nothing_can_be_written(tmp_path: Path) -> None:
    write_style_delta(tmp_path / "none.safetensors", StyleDelta({}, "0123"))
    assert read_style_delta(tmp_path / "none.safetensors").values == {}


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(file: Path) -> None:
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_style_delta(file, StyleDelta({}, "4567"))
    assert read_style_delta(file).bundle_digest == "0123"
    write_style_delta(file, StyleDelta({}, "4567"), overwrite=True)
    assert read_style_delta(file).bundle_digest == "4567"


def test_every_changed_byte_is_found(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in (len(content) - 1, content.index(b"in ink"), content.index(b"0123")):
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(RestyleError, match=r"does not have the hash.*live2diff-trt restyle"):
            read_style_delta(file)


def test_what_is_no_style_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RestyleError, match="there is no style"):
        read_style_delta(tmp_path / "absent.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(RestyleError, match="can't be read as safetensors"):
        read_style_delta(file)
    save_file(VALUES, tmp_path / "other.safetensors")
    with pytest.raises(RestyleError, match="no style of this version"):
        read_style_delta(tmp_path / "other.safetensors")
    save_file(VALUES, tmp_path / "other.safetensors", {"format": "live2diff-trt style 2"})
    with pytest.raises(RestyleError, match="its format is 'live2diff-trt style 2'"):
        read_style_delta(tmp_path / "other.safetensors")


def test_values_of_a_kind_that_no_bundle_has_are_refused(tmp_path: Path) -> None:
    tensor = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"format": FORMAT}, "a": tensor}).encode()
    (tmp_path / "ink.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(RestyleError, match="can't be read as safetensors"):
        read_style_delta(tmp_path / "ink.safetensors")


@pytest.mark.skipif(os.name == "nt", reason="a file that is mapped can't be replaced there")
def test_values_stay_what_they_were_when_their_file_is_replaced(file: Path) -> None:
    found = read_style_delta(file)
    write_style_delta(file, StyleDelta({name: values + 1 for name, values in VALUES.items()}, "0123"), overwrite=True)
    assert all(found.values[name].tobytes() == values.tobytes() for name, values in VALUES.items())


def test_a_place_that_cant_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RestyleError, match="can't be written"):
        write_style_delta(tmp_path / "absent" / "ink.safetensors", DELTA)


@pytest.mark.usefixtures("windows_files")
def test_on_windows_a_style_in_use_stays_and_the_error_says_what_to_do(file: Path) -> None:
    content, found = file.read_bytes(), read_style_delta(file)
    assert used_in(file.parent) == [file.name]
    with pytest.raises(RestyleError, match=r"can't be written .*being used.*End the streams that use it") as caught:
        write_style_delta(file, StyleDelta({}, "4567"), overwrite=True)
    assert isinstance(caught.value.__cause__, PermissionError)
    assert [path.read_bytes() for path in file.parent.iterdir()] == [content]
    assert all(found.values[name].tobytes() == values.tobytes() for name, values in VALUES.items())
    del found
    write_style_delta(file, StyleDelta({}, "4567"), overwrite=True)
    assert read_style_delta(file).bundle_digest == "4567"


@pytest.mark.usefixtures("windows_files")
def test_on_windows_a_view_of_one_tensor_keeps_the_style_in_use(file: Path) -> None:
    part = read_style_delta(file).values["a.weight"][1:]
    with pytest.raises(RestyleError, match="being used"):
        write_style_delta(file, DELTA, overwrite=True)
    np.testing.assert_array_equal(part, VALUES["a.weight"][1:])
    del part
    write_style_delta(file, DELTA, overwrite=True)


@pytest.mark.usefixtures("windows_files")
@pytest.mark.parametrize("damage", ["another bit", "cut off", "another dtype", "another format"])
def test_on_windows_a_style_that_was_refused_can_be_made_again_while_the_error_is_kept(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    if damage == "another bit":
        content[-1] ^= 1
    elif damage == "cut off":
        del content[-1:]
    elif damage == "another dtype":
        content = content.replace(b'"F32"', b'"U32"')
    else:
        content = content.replace(FORMAT.encode(), FORMAT[:-1].encode() + b"0")
    file.write_bytes(content)
    with pytest.raises(RestyleError) as kept:
        read_style_delta(file)
    assert used_in(file.parent) == []
    write_style_delta(file, DELTA, overwrite=True)
    assert kept.value.remedy.startswith("Make it again")
    assert read_style_delta(file).bundle_digest == "0123"
