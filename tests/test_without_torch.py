"""A streaming box needs no torch: streaming runs in an environment that has only what the package declares."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ROOMS = ("bundle", "engine", "kernels", "runtime", "serve", "evaluation", "cli")
ABSENT = ("torch", "diffusers", "transformers", "onnxscript", "tensorrt", "tensorrt_rtx", "skvideo", "pytest")


def declared_distributions(extra: str) -> set[str]:
    """Return the names of all distributions that ``live2diff-trt[extra]`` asks for, and those they ask for."""
    found: set[str] = set()
    waiting = [Requirement(f"live2diff-trt[{extra}]")]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found and not requirement.extras:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": one}) for one in extras):
                waiting.append(needed)
    return found - {"live2diff-trt"}


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the declared distributions and to our own rooms, and to nothing else."""
    site = tmp_path_factory.mktemp("site")
    for name in set().union(*map(declared_distributions, ("onnxruntime", "cuda", "serve", "evaluate"))):
        for file in metadata.files(name) or []:
            link = site / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(str(metadata.distribution(name).locate_file(file.parts[0])))
    package = site / "live2diff_trt"
    package.mkdir()
    (package / "__init__.py").symlink_to(ROOT / "live2diff_trt" / "__init__.py")
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    return site


def run_bare(site: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees the standard library and ``site`` alone."""
    program = f"import sys; sys.path.append({str(site)!r})\n{program}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


def test_every_module_imports(bare_environment: Path) -> None:
    modules = [
        f"live2diff_trt.{room}.{path.stem}"
        for room in ROOMS
        for path in (ROOT / room).glob("*.py")
        if path.stem != "__init__"
    ]
    assert len(modules) > 25
    program = f"""
import importlib, json
for name in {ABSENT!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{{name}} can be imported here: this environment proves nothing")
for name in {modules!r}:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) & {{"torch", "onnxruntime"}})))
"""
    result = run_bare(bare_environment, program)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []  # a backend is imported when it is used, not before


def test_a_bundle_streams(bare_environment: Path, tiny_bundle: Path) -> None:
    program = f"""
from live2diff_trt import Stream
from live2diff_trt.runtime.source import open_source
with Stream.open({str(tiny_bundle)!r}, prompt="a red fox") as stream, open_source("test-pattern:64x64@25,10") as source:
    print(len(list(stream.run(source))))
"""
    result = run_bare(bare_environment, program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "10"


def test_the_server_starts(bare_environment: Path, tiny_bundle: Path) -> None:
    program = f"""
import threading, time
from urllib.request import urlopen
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.shared_engine import open_shared_engine
from live2diff_trt.serve.server import bind, make_server
from live2diff_trt.serve.settings import ServeSettings
settings = ServeSettings(port=0)
engine = open_shared_engine({str(tiny_bundle)!r}, OnnxRuntimeOptions(threads=1))
listening = bind(settings)
server = make_server(engine, settings)
running = threading.Thread(target=server.run, args=([listening],))
running.start()
while not server.started:
    time.sleep(0.05)
print(urlopen(f"http://127.0.0.1:{{listening.getsockname()[1]}}/healthz").read().decode())
server.should_exit = True
running.join()
"""
    result = run_bare(bare_environment, program)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["status"] == "ok"


def test_exporting_there_says_what_to_install(bare_environment: Path) -> None:
    program = """
from live2diff_trt.cli.main import main
sys.argv = ["live2diff-trt", "export", "--preset", "tiny", "--out", "bundle"]
main()
"""
    result = run_bare(bare_environment, program)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "live2diff-trt[export]" in result.stderr


def test_the_command_line_starts_without_onnx(bare_environment: Path) -> None:
    program = """
sys.modules["onnx"] = None  # as where no backend is installed yet: `doctor` says what to install
from live2diff_trt.cli.main import main
sys.argv = ["live2diff-trt", "--version"]
main()
"""
    result = run_bare(bare_environment, program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("live2diff-trt ")
