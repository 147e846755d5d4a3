"""Where compiled kernels come from, and what happens where none can be had."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from live2diff_trt.bundle.cache_folder import cache_root
from live2diff_trt.kernels import library
from live2diff_trt.kernels.library import (
    KernelError,
    KernelLibrary,
    compile_kernels,
    entry_points,
    load_fat_binaries,
    source_digest,
)

pytest.importorskip("cuda.core")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one tiny kernel, which stands for all sources."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "tiny.cu").write_text('#include "value.cuh"\nextern "C" __global__ void tiny(int* out) { *out = VALUE; }')
    (folder / "value.cuh").write_text("constexpr int VALUE = 1;")
    monkeypatch.setattr(library, "FOLDER", folder)
    monkeypatch.setattr(library, "entry_points", lambda: {"tiny": ("tiny",)})
    return folder


def count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    import cuda.core

    compiled: list[str] = []

    class Program:
        def __init__(self, code: str, code_type: str, options: Any) -> None:
            self._program = original(code, code_type, options=options)
            compiled.append(options.arch)

        def compile(self, target: str) -> Any:
            return self._program.compile(target)

    original = cuda.core.Program
    monkeypatch.setattr(cuda.core, "Program", Program)
    return compiled


def test_compiled_kernels_are_kept(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = count_compilations(monkeypatch)
    first = compile_kernels("sm_90", tmp_path / "cache")
    again = compile_kernels("sm_90", tmp_path / "cache")
    assert compiled == ["sm_90"]
    assert bytes(again["tiny"].code) == bytes(first["tiny"].code)
    compile_kernels("sm_80", tmp_path / "cache")
    assert compiled == ["sm_90", "sm_80"]


def test_a_changed_header_is_compiled_anew(sources: Path, tmp_path: Path) -> None:
    before = compile_kernels("sm_90", tmp_path / "cache")
    (sources / "value.cuh").write_text("constexpr int VALUE = 2;")
    after = compile_kernels("sm_90", tmp_path / "cache")
    assert bytes(before["tiny"].code) != bytes(after["tiny"].code)


def test_a_refused_source_shows_the_compilers_log(sources: Path) -> None:
    (sources / "value.cuh").write_text("constexpr int OTHER = 2;")
    with pytest.raises(KernelError, match=r'identifier "VALUE" is undefined[\s\S]*report this log'):
        compile_kernels("sm_90")


def test_a_gpu_that_nvrtc_does_not_know(sources: Path) -> None:
    with pytest.raises(KernelError, match=r"sm_999[\s\S]*update nvidia-cuda-nvrtc"):
        compile_kernels("sm_999")


def test_without_nvrtc_it_says_what_to_install(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.core
    from cuda.pathfinder import DynamicLibNotFoundError

    def find_nothing(*_: Any, **__: Any) -> None:
        raise DynamicLibNotFoundError("nvrtc")

    monkeypatch.setattr(cuda.core, "Program", find_nothing)
    with pytest.raises(KernelError, match="pip install nvidia-cuda-nvrtc"):
        compile_kernels("sm_90")


def test_fat_binaries_are_taken_only_with_their_sources(sources: Path) -> None:
    assert load_fat_binaries(sources) is None
    (sources / "tiny.fatbin").write_bytes(b"binary")
    assert load_fat_binaries(sources) is None
    (sources / "tiny.fatbin.sha256").write_text("0" * 64)
    assert load_fat_binaries(sources) is None
    (sources / "tiny.fatbin.sha256").write_text(source_digest(sources) + "\n")
    found = load_fat_binaries(sources)
    assert found is not None
    assert found["tiny"].code == b"binary"


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "b.cu").write_bytes(b"two")
    (tmp_path / "a.cuh").write_bytes(b"one")
    (tmp_path / "c.py").write_bytes(b"not a source")
    lines = f"a.cuh {hashlib.sha256(b'one').hexdigest()}\nb.cu {hashlib.sha256(b'two').hexdigest()}\n"
    assert source_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_library_is_compiled_for_its_device(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE2DIFF_TRT_CACHE", str(tmp_path / "root"))
    compiled = count_compilations(monkeypatch)
    device: Any = SimpleNamespace(compute_capability=(8, 9), device_id=3)
    assert KernelLibrary.load(device).device_id == 3
    assert compiled == ["sm_89"]
    assert any((tmp_path / "root" / "kernels").rglob("*"))


@pytest.mark.parametrize("fits", [True, False])
def test_fat_binaries_must_fit_the_device(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    from cuda.core._utils.cuda_utils import CUDAError

    class FatBinary:
        def get_kernel(self, name: str) -> str:
            if not fits:
                raise CUDAError("CUDA_ERROR_NO_BINARY_FOR_GPU")
            return name

    monkeypatch.setenv("LIVE2DIFF_TRT_CACHE", str(tmp_path))
    monkeypatch.setattr(library, "load_fat_binaries", lambda _: {"tiny": FatBinary()})
    compiled = count_compilations(monkeypatch)
    device: Any = SimpleNamespace(compute_capability=(11, 0), device_id=0)
    KernelLibrary.load(device)
    assert compiled == ([] if fits else ["sm_110"])


def test_a_kernel_that_does_not_exist() -> None:
    objects: Any = dict.fromkeys(entry_points())
    with pytest.raises(KernelError, match="there is no kernel streaming_attention_float16_7"):
        KernelLibrary(0, objects).kernel("streaming_attention_float16_7")


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("LIVE2DIFF_TRT_CACHE", "")
    assert cache_root() == tmp_path / "live2diff-trt"
    monkeypatch.setenv("LIVE2DIFF_TRT_CACHE", str(tmp_path / "chosen"))
    assert cache_root() == tmp_path / "chosen"
