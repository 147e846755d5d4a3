"""The CUDA kernels, compiled: from the fat binaries installed beside this file, else by NVRTC on first use."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live2diff_trt.bundle.cache_folder import cache_root
from live2diff_trt.bundle.errors import Live2DiffError

if TYPE_CHECKING:
    from cuda.core import Device, Kernel, ObjectCode

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
ELEMENT_TYPES = ("float16", "float32")
HEAD_CHANNELS = (4, 8, 40, 80, 160)
GUIDED = ("_self", "_full", "_initialize")
"""Endings of the steps of each kind of guidance."""
VECTOR_BYTES = (4, 8, 16)
"""That group_norm_once reads at a time."""


class KernelError(Live2DiffError):
    """A kernel can't be compiled or loaded, or does not exist for what was asked of it."""


def entry_points() -> dict[str, tuple[str, ...]]:
    """Return the kernels of each source file: its name without ``.cu`` → names of its entry points."""
    typed = {
        "pictures": ("preprocess", "postprocess"),
        "depth": ("resize_bilinear", "depth_range", "depth_to_image"),
        "latents": (
            "enter",
            "enter_warm_up",
            "enter_warm_up_from_x0",
            *(f"{step}{kind}" for step in ("lcm_step", "lcm_step_warm_up") for kind in ("", *GUIDED)),
        ),
        "window": ("window_inputs",),
        "group_norm": ("group_statistics", "group_normalise"),
        "gated_gelu": ("gated_gelu",),
    }
    names = {
        file: tuple(f"{one}_{dtype}" for one in kernels for dtype in ELEMENT_TYPES) for file, kernels in typed.items()
    }
    names["window"] += ("scatter_slots", "scatter_sink")
    names["copies"] = ("copy_vectors", "fetch", "deliver")
    for attention in ("streaming_attention", "warm_up_attention", "spatial_attention"):
        names[attention] = tuple(f"{attention}_{dtype}_{head}" for dtype in ELEMENT_TYPES for head in HEAD_CHANNELS)
    names["group_norm_once"] = tuple(
        f"group_norm_once_{dtype}_{vector_bytes}" for dtype in ELEMENT_TYPES for vector_bytes in VECTOR_BYTES
    )
    return names


def source_digest(folder: Path) -> str:
    """Return the sha256 of every CUDA source, as CMakeLists.txt computes it: of lines of names and hashes."""
    sources = sorted((*folder.glob("*.cu"), *folder.glob("*.cuh")), key=lambda path: path.name)
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sources]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class KernelLibrary:
    """Every kernel, ready to launch on one device.

    Attributes:
        device_id: that device.
    """

    def __init__(self, device_id: int, objects: dict[str, ObjectCode]) -> None:
        self.device_id = device_id
        self._objects = {entry: objects[file] for file, entries in entry_points().items() for entry in entries}
        self._kernels: dict[str, Kernel] = {}

    @classmethod
    def load(cls, device: Device) -> KernelLibrary:
        """Load the installed fat binaries if they fit the device, or compile for it; compiled kernels are kept on disk.

        The device must be current. Compiling takes about ten seconds, once per machine.

        Raises:
            KernelError: if they can't be compiled, with the compiler's log.
        """
        objects = load_fat_binaries(FOLDER)
        if objects is None or not _runs_here(objects):
            major, minor = device.compute_capability
            objects = compile_kernels(f"sm_{major}{minor}", cache_root() / "kernels")
        return cls(device.device_id, objects)

    def kernel(self, name: str) -> Kernel:
        """Return a kernel by its entry point; raise KernelError where there is none of that name."""
        if name not in self._kernels:
            if name not in self._objects:
                raise KernelError(f"there is no kernel {name}", f"Use one of {', '.join(sorted(self._objects))}")
            self._kernels[name] = self._objects[name].get_kernel(name)
        return self._kernels[name]


def load_fat_binaries(folder: Path) -> dict[str, ObjectCode] | None:
    """Return the fat binaries in a folder, or None unless all are there and were made from the sources beside them."""
    from cuda.core import ObjectCode

    digest = source_digest(folder)
    objects: dict[str, ObjectCode] = {}
    for file in entry_points():
        binary, sidecar = folder / f"{file}.fatbin", folder / f"{file}.fatbin.sha256"
        if not binary.is_file() or not sidecar.is_file() or sidecar.read_text().strip() != digest:
            logger.debug("%s is missing or was made from other sources: kernels are compiled by NVRTC", binary)
            return None
        objects[file] = ObjectCode.from_fatbin(binary.read_bytes(), name=file)
    return objects


def _runs_here(objects: dict[str, ObjectCode]) -> bool:
    """Whether fat binaries hold code for the current device; they are made for a list of architectures."""
    from cuda.core._utils.cuda_utils import CUDAError

    try:
        for file, entries in entry_points().items():
            objects[file].get_kernel(entries[0])
    except CUDAError as error:
        logger.info("the installed kernels do not run on this GPU (%s): they are compiled by NVRTC", error)
        return False
    return True


def compile_kernels(arch: str, cache_folder: Path | None = None) -> dict[str, ObjectCode]:
    """Compile every source by NVRTC; needs no GPU.

    Args:
        arch: of the device, as ``sm_90``.
        cache_folder: where compiled kernels are looked up and kept; None: compile anew.

    Returns:
        Source file's name without ``.cu`` → its cubin.

    Raises:
        KernelError: if NVRTC is missing or refuses a source, with its log.
    """
    from cuda.core.utils import FileStreamProgramCache

    digest = source_digest(FOLDER).encode()
    if cache_folder is None:
        return {file: _compile(file, arch, None, digest) for file in entry_points()}
    with FileStreamProgramCache(cache_folder) as cache:
        return {file: _compile(file, arch, cache, digest) for file in entry_points()}


def _compile(file: str, arch: str, cache: Any, digest: bytes) -> ObjectCode:
    from cuda.core import ObjectCode, Program, ProgramOptions
    from cuda.core._utils.cuda_utils import CUDAError  # public names of what Program raises do not exist
    from cuda.core.utils import make_program_cache_key
    from cuda.pathfinder import DynamicLibNotFoundError

    code = (FOLDER / f"{file}.cu").read_text(encoding="utf-8")
    options = ProgramOptions(name=f"{file}.cu", arch=arch, std="c++17", include_path=str(FOLDER))
    try:
        key = make_program_cache_key(
            code=code, code_type="c++", options=options, target_type="cubin", extra_digest=digest
        )
        if cache is not None and (kept := cache.get(key)) is not None:
            return ObjectCode.from_cubin(kept, name=file)
        logger.info("compiling %s.cu for %s", file, arch)
        compiled = Program(code, "c++", options=options).compile("cubin")
    except DynamicLibNotFoundError as error:
        raise KernelError(
            "NVRTC, which compiles the kernels, is not installed", "Install it with `pip install nvidia-cuda-nvrtc`"
        ) from error
    except CUDAError as error:
        raise KernelError(
            f"NVRTC can't compile {file}.cu for {arch}: {error}",
            "For a GPU newer than it knows, update nvidia-cuda-nvrtc; otherwise report this log",
        ) from error
    if cache is not None:
        cache[key] = compiled
    return compiled
