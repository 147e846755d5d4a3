"""What ships beside the wheel names extras, folders and options that there are."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from live2diff_trt.cli.main import app
from tests.test_wheel import ROOMS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))


def test_the_image_installs_extras_that_there_are() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    named = [set(extras.split(",")) for extras in re.findall(r"\[([a-z,-]+)\]'", dockerfile)]
    assert named == [{"serve", "tensorrt-rtx", "onnxruntime"}] * 2
    assert named[0] <= set(metadata("live2diff-trt").get_all("Provides-Extra") or ())


def test_the_image_reports_its_use_to_nobody() -> None:
    environment = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").partition("\nENV ")[2]
    assert "ORT_DISABLE_TELEMETRY=1" in environment.partition("\nVOLUME")[0]


def test_the_image_is_built_from_every_room_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert let_in == {*ROOMS, "live2diff_trt", "pyproject.toml", "README.md", "LICENSE", "CMakeLists.txt", ".mypy"}
    assert all((ROOT / name).exists() for name in let_in)


@pytest.mark.parametrize("service", ["build", "page"])
def test_services_run_commands_with_options_that_there_are(service: str) -> None:
    name, bundle, *options = COMPOSE["services"][service]["command"]
    assert f"{bundle}:ro" == COMPOSE["services"][service]["volumes"][0].partition("}:")[2]
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known


def test_nobody_comes_to_the_page_but_through_tls() -> None:
    page, tls = COMPOSE["services"]["page"], COMPOSE["services"]["tls"]
    address = "127.0.0.1", "8000"
    options = page["command"]
    assert (options[options.index("--host") + 1], options[options.index("--port") + 1]) == address
    assert "LIVE2DIFF_TOKEN" in page["environment"]  # on this address a token would not be asked for by itself
    assert page["network_mode"] == tls["network_mode"] == "host"
    caddyfile = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    assert "reverse_proxy {}:{}".format(*address) in caddyfile
    assert "admin off" in caddyfile  # on the host's network, its port would be the page's to reach


@pytest.mark.parametrize("service", ["build", "page"])
def test_a_stop_is_heard_before_the_page_listens(service: str) -> None:
    assert COMPOSE["services"][service]["init"]
