"""The kernels compile for every architecture that is served, without a GPU; they spill nothing, structures agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.kernels.group_norm import (
    _KEPT_BYTES,
    _MAXIMUM_THREADS_AT_ONCE,
    MAXIMUM_CHUNKS,
    MAXIMUM_GROUPS,
)
from live2diff_trt.kernels.library import FOLDER, compile_kernels, entry_points, load_fat_binaries
from live2diff_trt.kernels.spatial_attention import BLOCKS
from live2diff_trt.kernels.tick_parameters import MAXIMUM_ROWS, MAXIMUM_STEPS, SINK, TICK_PARAMETERS, WINDOW
from live2diff_trt.kernels.window import SLOT_COPY

pytest.importorskip("cuda.core")

ROOT = Path(__file__).parents[2]
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None or shutil.which("cmake") is None, reason="needs nvcc and cmake"
)


def test_every_source_is_listed() -> None:
    assert set(entry_points()) == {path.stem for path in FOLDER.glob("*.cu")}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles(architecture: int) -> None:
    objects = compile_kernels(f"sm_{architecture}")
    for file, entries in entry_points().items():
        symbols = set(re.findall(rb"[a-z0-9_]+", bytes(objects[file].code)))
        assert {entry.encode() for entry in entries} <= symbols


@pytest.mark.parametrize(
    "file",
    [
        "streaming_attention",
        "warm_up_attention",
        "spatial_attention",
        "group_norm",
        "group_norm_once",
        "gated_gelu",
        "copies",
        "latents",
    ],
)
def test_everything_stays_in_registers(file: str) -> None:
    from cuda.core import Program, ProgramOptions

    log = _Log()
    options = ProgramOptions(name=f"{file}.cu", arch="sm_90", std="c++17", include_path=str(FOLDER), ptxas_options="-v")
    Program((FOLDER / f"{file}.cu").read_text(), "c++", options=options).compile("cubin", logs=log)
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log.text)
    assert spilled == [("0", "0")] * len(entry_points()[file])


@pytest.mark.parametrize(
    ("file", "constants"),
    [
        ("group_norm", {"MAXIMUM_THREADS": 640, "MAXIMUM_CHUNKS": MAXIMUM_CHUNKS, "MAXIMUM_GROUPS": MAXIMUM_GROUPS}),
        ("group_norm_once", {"MAXIMUM_THREADS": _MAXIMUM_THREADS_AT_ONCE, "KEPT_BYTES": _KEPT_BYTES}),
        ("gated_gelu", {"GATED_GELU_THREADS": 256, "VECTORS_PER_THREAD": 2}),
        ("spatial_attention", {"PLAIN_THREADS": 128}),
        *(
            ("spatial_attention", {f"Tiling<{head}>::warps": threads // 32, f"QueryTile<{head}>::steps": head // 16})
            for head, (_, threads) in BLOCKS.items()
        ),
        *(
            ("spatial_attention", {f"Tiling<{head}>::query_tiles * 16 * Tiling<{head}>::warps": queries})
            for head, (queries, _) in BLOCKS.items()
        ),
    ],
)
def test_launchers_and_kernels_agree(file: str, constants: dict[str, int]) -> None:
    lines = [f'static_assert({constant} == {value}, "");' for constant, value in constants.items()]
    _compile_program(f'#include "{file}.cu"\n' + "\n".join(lines))


class _Log:
    text = ""

    def write(self, text: str) -> None:
        self.text += text


def test_structures_agree_with_their_records() -> None:
    row = TICK_PARAMETERS["rows"].base
    lines = [
        *_assertions("TickParameters", TICK_PARAMETERS),
        *_assertions("RowParameters", row),
        *_assertions("SlotCopy", SLOT_COPY),
        f'static_assert(MAXIMUM_STEPS == {MAXIMUM_STEPS} && MAXIMUM_ROWS == {MAXIMUM_ROWS}, "constants");',
        f'static_assert(WINDOW == {WINDOW} && SINK == {SINK}, "constants");',
        'static_assert(sizeof(StepTable) == 4 * MAXIMUM_STEPS * sizeof(float), "StepTable");',
    ]
    _compile_program('#include "window.cu"\n' + "\n".join(lines))
    wrong = _assertions("SlotCopy", np.dtype([("source", np.uint32), ("ring_rows", np.uint64)]))
    with pytest.raises(Exception, match="SlotCopy"):
        _compile_program('#include "window.cu"\n' + "\n".join(wrong))


def _assertions(name: str, record: np.dtype[np.void]) -> list[str]:
    sizes = [f'static_assert(sizeof({name}) == {record.itemsize}, "{name}");']
    assert record.fields is not None
    for field, (dtype, offset, *_) in record.fields.items():
        place = f"__builtin_offsetof({name}, {field})"
        sizes.append(f'static_assert({place} == {offset}, "{name}.{field}");')
        sizes.append(f'static_assert(sizeof({name}::{field}) == {dtype.itemsize}, "{name}.{field}");')
    return sizes


def _compile_program(code: str) -> None:
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(name="layout.cu", arch="sm_90", std="c++17", include_path=str(FOLDER))
    Program(code, "c++", options=options).compile("cubin")


@needs_nvcc
@pytest.mark.slow
def test_cmake_makes_fat_binaries_that_are_taken(tmp_path: Path) -> None:
    build, installed = tmp_path / "build", tmp_path / "installed"
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(build), "-DLIVE2DIFF_ARCHITECTURES=90"],
        ["cmake", "--build", str(build)],
        ["cmake", "--install", str(build), "--prefix", str(installed)],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    folder = installed / "kernels"
    assert load_fat_binaries(folder) is None  # the sources they were made from are not beside them
    for source in (*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")):
        shutil.copy(source, folder)
    objects = load_fat_binaries(folder)
    assert objects is not None
    assert set(objects) == set(entry_points())
    (folder / "half.cuh").write_text("// changed")
    assert load_fat_binaries(folder) is None
