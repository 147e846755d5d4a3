"""Nothing in the package needs what Windows lacks: modules, functions, signals, or line endings of its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("bundle", "model", "export", "engine", "kernels", "runtime", "serve", "evaluation", "conformance", "training"),
    *("cli", "benchmarks"),
)
POSIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
POSIX_NAMES = {
    "os": ("chown", "fork", "forkpty", "getpgid", "getuid", "geteuid", "killpg", "mkfifo", "nice", "pread", "pwrite",
           "sched_getaffinity", "setsid", "sysconf", "uname", "O_CLOEXEC", "O_DIRECT", "O_NONBLOCK"),
    "signal": ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "setitimer"),
    "socket": ("AF_UNIX", "SO_REUSEPORT"),
    "mmap": ("MAP_SHARED", "MAP_PRIVATE", "PROT_READ", "PROT_WRITE"),
}  # fmt: skip
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))


def find_posix(path: Path) -> Iterator[str]:
    """Yield what a file uses, at its top or in a function, that Windows does not have."""
    for node in nodes(path):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = [alias.name for alias in node.names]
            origin = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            yield from {*imported, origin} & set(POSIX_MODULES)
            yield from (f"{origin}.{name}" for name in imported if name in POSIX_NAMES.get(origin, ()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = node.value.id
            yield from (f"{owner}.{name}" for name in POSIX_NAMES.get(owner, ()) if name == node.attr)


def find_loose_texts(path: Path) -> Iterator[str]:
    """Yield calls that write text in an encoding or with line endings that differ from system to system."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write_text":
            given = {keyword.arg for keyword in node.keywords}
            yield from (f"line {node.lineno} gives no {name}" for name in ("encoding", "newline") if name not in given)


def test_what_is_looked_for_is_found(tmp_path: Path) -> None:
    file = tmp_path / "posix.py"
    file.write_text(
        "import os\nfrom signal import SIGHUP\ndef lock():\n    import fcntl\n    os.fork()\n"
        "path.write_text('a', encoding='utf-8')\n"
    )
    assert sorted(find_posix(file)) == ["fcntl", "os.fork", "signal.SIGHUP"]
    assert list(find_loose_texts(file)) == ["line 6 gives no newline"]


def test_no_file_uses_what_windows_lacks() -> None:
    assert len(FILES) > 200
    found = {str(path.relative_to(ROOT)): sorted(find_posix(path)) for path in FILES}
    assert {path: uses for path, uses in found.items() if uses} == {}


def test_text_is_written_with_the_same_bytes_everywhere() -> None:
    found = {path: list(find_loose_texts(path)) for path in FILES}
    assert {path: loose for path, loose in found.items() if loose} == {}


IMPORTS = f"""
import importlib, json, sys
modules = json.loads(sys.stdin.read())
for name in modules:
    importlib.import_module(name)
others = [name for name in sys.modules if name.partition(".")[0] == "live2diff_trt"]
for name in others:
    del sys.modules[name]
for name in {POSIX_MODULES!r}:
    sys.modules[name] = None
sys.platform = "win32"
for name in modules:
    importlib.import_module(name)
print(len(modules))
"""
"""What others import is imported before, for that depends on the system by right."""


@pytest.mark.slow
def test_every_module_imports_as_on_windows() -> None:
    modules = [
        f"live2diff_trt.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
        for path in FILES
        if path.stem not in ("__init__", "__main__")
    ]
    found = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        input=json.dumps(modules),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) == len(modules) > 200
