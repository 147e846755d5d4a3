"""Which flavour is used where, and that every name of TensorRT that is used exists in both."""

from __future__ import annotations

import ast
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread
from types import ModuleType
from typing import Any

import pytest

from live2diff_trt.engine.errors import FlavourError
from live2diff_trt.engine.flavour import (
    Flavour,
    LogMessages,
    Verdict,
    build_target,
    choose_flavour,
    judge_flavours,
    make_logger,
    refuse_target,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make flavours importable in the versions given; None: not importable."""

    def install(tensorrt: str | None = None, rtx: str | None = None) -> None:
        for name, version in (("tensorrt", tensorrt), ("tensorrt_rtx", rtx)):
            module = None
            if version is not None:
                module = ModuleType(name)
                module.__dict__["__version__"] = version
            monkeypatch.setitem(sys.modules, name, module)

    return install


def rtx_verdict(compute_capability: tuple[int, int] | None) -> Verdict:
    (verdict,) = (one for one in judge_flavours(compute_capability) if one.name == "tensorrt-rtx")
    return verdict


@pytest.mark.parametrize("gpu", [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1), None])
def test_rtx_works_on_its_gpus_and_ahead_of_time(install: Any, gpu: tuple[int, int] | None) -> None:
    install(rtx="1.7.1.5")
    assert rtx_verdict(gpu).usable
    assert choose_flavour("auto", gpu)[0].is_rtx


@pytest.mark.parametrize(
    ("version", "usable"),
    [("1.3.0.1", False), ("1.4.0.76", True), ("1.6.1.120", True), ("1.7.1.5", False), ("1.10.0", False)],
)
def test_only_some_rtx_run_on_hopper(install: Any, version: str, usable: bool) -> None:
    install(rtx=version)
    verdict = rtx_verdict((9, 0))
    assert (verdict.usable, verdict.version) == (usable, version)
    assert "9.0" in verdict.reason


@pytest.mark.parametrize("gpu", [(7, 0), (8, 7), (10, 0)])
def test_rtx_refuses_other_gpus(install: Any, gpu: tuple[int, int]) -> None:
    install(rtx="1.6.1.120")
    verdict = rtx_verdict(gpu)
    assert not verdict.usable
    assert f"{gpu[0]}.{gpu[1]}" in verdict.reason


def test_auto_prefers_tensorrt_where_there_is_a_gpu(install: Any) -> None:
    install(tensorrt="11.4.0.106", rtx="1.6.1.120")
    assert choose_flavour("auto", (8, 9))[0].name == "tensorrt"
    flavour, reason = choose_flavour("auto", None)
    assert (flavour.name, flavour.version) == ("tensorrt-rtx", "1.6.1.120")
    assert "ahead of time" in reason


def test_tensorrt_needs_a_gpu_that_it_supports(install: Any) -> None:
    install(tensorrt="11.4.0.106")
    with pytest.raises(FlavourError, match="builds only on the GPU that will run the plans, and there is none here"):
        choose_flavour("tensorrt", None)
    with pytest.raises(FlavourError, match=r"does not support compute capability 7\.0"):
        choose_flavour("tensorrt", (7, 0))


def test_a_flavour_that_was_named_is_never_replaced(install: Any) -> None:
    install(rtx="1.6.1.120")
    with pytest.raises(FlavourError, match=r"tensorrt: it can't be imported.*live2diff-trt\[tensorrt\]"):
        choose_flavour("tensorrt", (8, 9))
    install(tensorrt="11.4.0.106")
    with pytest.raises(FlavourError, match=r"tensorrt-rtx: it can't be imported"):
        choose_flavour("tensorrt-rtx", (8, 9))


def test_without_any_both_reasons_are_told(install: Any) -> None:
    install()
    with pytest.raises(FlavourError) as caught:
        choose_flavour("auto", (8, 9))
    assert "tensorrt: it can't be imported" in caught.value.problem
    assert "tensorrt-rtx: it can't be imported" in caught.value.problem
    assert "pip install live2diff-trt[tensorrt-rtx]" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise OSError('libnvinfer.so.11: cannot open shared object file')", "libnvinfer.so.11"),
        ("import a_library_that_is_missing", "a_library_that_is_missing"),
        ("", "__version__"),
    ],
)
def test_bindings_without_libraries_give_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, reason: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    verdict = judge_flavours((8, 9))[0]
    assert (verdict.name, verdict.version, verdict.usable) == ("tensorrt", None, False)
    assert reason in verdict.reason


def test_plans_for_another_gpu_only_from_rtx() -> None:
    tensorrt, rtx = Flavour("tensorrt", "11.4", None), Flavour("tensorrt-rtx", "1.6.1.120", None)
    refuse_target(tensorrt, (8, 9), (8, 9))
    refuse_target(rtx, (12, 0), None)
    refuse_target(rtx, (9, 0), (8, 9))
    with pytest.raises(FlavourError, match="only for the GPU of its own machine"):
        refuse_target(tensorrt, (8, 9), (8, 6))
    with pytest.raises(FlavourError, match=r"does not support compute capability 8\.7"):
        refuse_target(rtx, (8, 7), None)
    with pytest.raises(FlavourError, match=r"refuses compute capability 9\.0"):
        refuse_target(Flavour("tensorrt-rtx", "1.7.1.5", None), (9, 0), None)


def test_hopper_gets_plans_for_ada() -> None:
    assert build_target((9, 0)) == (8, 9)
    assert [build_target(target) for target in ((8, 6), (12, 0))] == [(8, 6), (12, 0)]


def test_tensorrts_log_goes_to_logging_and_errors_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "live2diff_trt.tensorrt")
    flavour, _ = choose_flavour("tensorrt-rtx", None)
    trt_logger, messages = make_logger(flavour)
    trt = flavour.module
    assert messages.first() == messages.last() == "it did not say why"
    for severity in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
        trt_logger.log(getattr(trt.ILogger, severity), "something\n  happened.")
    trt_logger.log(trt.ILogger.ERROR, "something else happened")
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "DEBUG", "INFO", "ERROR", "ERROR", "ERROR"]
    assert (messages.first(), messages.last()) == ("something happened", "something else happened")
    messages.clear()
    assert messages.first() == messages.last() == "it did not say why"


def test_errors_belong_to_the_thread_whose_call_they_end() -> None:
    messages = LogMessages()

    def fail(plan: str, together: Barrier) -> str:
        messages.clear()
        together.wait()
        messages.note(f"{plan} is damaged")
        together.wait()
        return messages.last()

    plans = ["first", "second", "third"]
    together = Barrier(len(plans), timeout=20)
    with ThreadPoolExecutor(len(plans)) as pool:
        found = [pool.submit(fail, plan, together) for plan in plans]
        assert [future.result() for future in found] == [f"{plan} is damaged" for plan in plans]
        assert pool.submit(fail, "fourth", Barrier(1)).result() == "fourth is damaged"


def test_errors_of_tensorrts_own_threads_are_found() -> None:
    messages = LogMessages()
    messages.clear()
    thread = Thread(target=messages.note, args=("a kernel can't be compiled",))
    thread.start()
    thread.join()
    assert messages.last() == "a kernel can't be compiled"


# --- the names of TensorRT that are used -----------------------------------------------------------------------------
#
# In the files of engine/ that use TensorRT, its objects lie in parameters and attributes with a name from RECEIVERS,
# where nothing else lies; local variables are followed. Each of their attributes must be a name of both flavours.

RECEIVERS = {
    "trt": "",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "refitter": "Refitter",
    "cache": "IRuntimeCache",
}
"""What is where; "" is the package itself."""
IN_ONE_FILE = {"plan.py": {"config": "IRuntimeConfig"}}
"""Where a name means something else."""
MAKES = {
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("INetworkDefinition", "get_input"): "ITensor",
    ("INetworkDefinition", "get_output"): "ITensor",
    ("OnnxParser", "get_error"): "ParserError",
    ("Runtime", "deserialize_cuda_engine"): "ICudaEngine",
    ("ICudaEngine", "create_execution_context"): "IExecutionContext",
    ("ICudaEngine", "create_runtime_config"): "IRuntimeConfig",
    ("IRuntimeConfig", "create_runtime_cache"): "IRuntimeCache",
}
RTX_ONLY = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
    ("IRuntimeConfig", "create_runtime_cache"),
    ("IRuntimeConfig", "set_runtime_cache"),
    ("IRuntimeCache", "deserialize"),
    ("IRuntimeCache", "serialize"),
}
"""Names that ``tensorrt`` lacks. They stand behind ``if flavour.is_rtx``, or in a function of BEHIND_IS_RTX."""
BEHIND_IS_RTX = {"_rtx_capability", "_make_cache", "serialise_caches"}
"""Functions that run with TensorRT-RTX alone."""
NOT_RECORDED = {("", "nptype"), ("", "__version__")}
"""What the Python packages add to the recorded names."""


def read_names(flavour: str) -> dict[str, list[str]]:
    return json.loads((ROOT / "tests" / "data" / f"{flavour}.json").read_text())


TENSORRT = read_names("tensorrt-11.4.0.106")
RTX = read_names("tensorrt_rtx-1.6.1.120")


def has_name(names: dict[str, list[str]], owner: str, name: str) -> bool:
    return name in (names if not owner else names.get(owner, ()))


class NameCheck(ast.NodeVisitor):
    """Collects what a file uses of TensorRT, and complains of what it can't vouch for."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.used: set[tuple[str, str]] = set()
        self.problems: list[str] = []
        self._guards = 0
        self._receivers = {**RECEIVERS, **IN_ONE_FILE.get(file, {})}
        self._locals: dict[str, str] = {}

    def complain(self, node: ast.AST, problem: str) -> None:
        self.problems.append(f"{self.file}:{getattr(node, 'lineno', 0)}: {problem}")

    def owner(self, node: ast.expr) -> str | None:
        """Return the class of TensorRT that an expression is of; "" for the package itself; None: something else."""
        if isinstance(node, ast.Name):
            return self._locals.get(node.id, self._receivers.get(node.id))
        if isinstance(node, ast.Attribute):
            return self.owner_of_attribute(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            maker, name = self.owner(node.func.value), node.func.attr
            is_class = maker == "" and name[0].isupper()  # trt.Builder(…)
            return name if is_class else MAKES.get((maker or "", name))
        return None

    def owner_of_attribute(self, node: ast.Attribute) -> str | None:
        if node.attr == "module":
            return ""
        owner = self.owner(node.value)
        if owner == "":
            return node.attr  # trt.BuilderFlag
        return self._receivers.get(node.attr[1:]) if owner is None and node.attr.startswith("_") else None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.owner(node.value)
        if owner is not None and (owner, node.attr) not in NOT_RECORDED:
            self.check(node, owner, node.attr)
        self.generic_visit(node)

    def check(self, node: ast.AST, owner: str, name: str) -> None:
        self.used.add((owner, name))
        full = f"{owner}.{name}".lstrip(".")
        if not has_name(RTX, owner, name):
            self.complain(node, f"tensorrt_rtx has no {full}")
        if has_name(TENSORRT, owner, name) or owner == "ComputeCapability":
            return
        if (owner, name) not in RTX_ONLY:
            self.complain(node, f"tensorrt has no {full}")
        elif not self._guards:
            self.complain(node, f"{full} is not behind is_rtx")

    def visit_Call(self, node: ast.Call) -> None:
        if (
            isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr")
            and self.owner(node.args[0]) is not None
        ):
            self.complain(node, "names of TensorRT are written out, so that they can be checked")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        made = self.owner(node.value)
        if made is None or made not in RECEIVERS.values():
            return
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._locals[target.id] = made
            elif self.owner(target) != made:
                self.complain(target, f"{ast.unparse(target)} holds a {made or 'module'}; RECEIVERS does not know it")

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        guarded = isinstance(node.test, ast.Attribute) and node.test.attr == "is_rtx"
        self._guards += guarded
        for child in node.body:
            self.visit(child)
        self._guards -= guarded
        for child in node.orelse:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        guarded, outer = node.name in BEHIND_IS_RTX, self._locals
        self._guards += guarded
        self._locals = dict(outer)
        self.generic_visit(node)
        self._guards -= guarded
        self._locals = outer


def uses_tensorrt(text: str) -> bool:
    return "flavour.module" in text or "trt." in text.replace("live2diff_trt.", "")


def engine_files() -> list[Path]:
    return [path for path in sorted((ROOT / "engine").glob("*.py")) if uses_tensorrt(path.read_text())]


def check_names(text: str, file: str = "a file") -> NameCheck:
    check = NameCheck(file)
    check.visit(ast.parse(text))
    return check


@pytest.mark.parametrize("path", engine_files(), ids=lambda path: path.name)
def test_every_name_of_tensorrt_exists_in_both_flavours(path: Path) -> None:
    check = check_names(path.read_text(), path.name)
    assert check.problems == []
    assert check.used


def test_the_files_that_use_tensorrt_are_found() -> None:
    assert {"flavour.py", "plan_builder.py"} <= {path.name for path in engine_files()}
    used = set().union(*(check_names(path.read_text()).used for path in engine_files()))
    assert {("Builder", "build_serialized_network"), ("BuilderFlag", "REFIT"), ("ParserError", "node_name")} <= used
    assert {pair for pair in RTX_ONLY if has_name(TENSORRT, *pair)} == set()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("trt.Builder(logger).build_engine(network)", "no Builder.build_engine"),
        ("self._trt.BuilderFlag.FP16", "no BuilderFlag.FP16"),
        ("flavour.module.Buildr", "no Buildr"),
        ("config.max_workspace_size = 1", "no IBuilderConfig.max_workspace_size"),
        ("engine.create_execution_context(c).execute_async_v2()", "no IExecutionContext.execute_async_v2"),
        ("network.add_plugin_v3(a, b, c)", "tensorrt_rtx has no INetworkDefinition.add_plugin_v3"),
        ("config.set_compute_capability(c, 0)", "IBuilderConfig.set_compute_capability is not behind is_rtx"),
        ("if not flavour.is_rtx:\n    config.set_compute_capability(c, 0)", "is not behind is_rtx"),
        ("if flavour.is_rtx:\n    pass\nelse:\n    config.set_compute_capability(c, 0)", "is not behind is_rtx"),
        ("self.thing = builder.create_network(0)", "self.thing holds a INetworkDefinition"),
        ("thing = builder.create_network(0)\nthing.add_plugin()", "no INetworkDefinition.add_plugin"),
        ("getattr(trt, name)", "written out"),
    ],
)
def test_an_unknown_name_is_found(line: str, problem: str) -> None:
    assert any(problem in found for found in check_names(line).problems)


def test_what_stands_behind_is_rtx_passes() -> None:
    assert check_names("if self._flavour.is_rtx:\n    config.set_compute_capability(c, 0)").problems == []
