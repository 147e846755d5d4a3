"""The page's files: complete, and of this server alone."""

from __future__ import annotations

import re

import pytest

from live2diff_trt.serve.app import PAGE
from tests.serve.made_up_server import RunningServer

FILES = sorted(file.name for file in PAGE.iterdir())
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_as_what_it_is(server: RunningServer, name: str) -> None:
    answer = server.get(f"/{name}")
    assert answer.headers["content-type"].split(";")[0] == TYPES[name.rsplit(".", 1)[1]]
    assert answer.content == (PAGE / name).read_bytes()


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    for name in FILES:
        text = (PAGE / name).read_text()
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, name
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=\"", text), name


def test_what_scripts_look_for_is_on_the_page() -> None:
    page = (PAGE / "index.html").read_text()
    on_page = set(re.findall(r'\bid="([^"]+)"', page))
    wanted = {name for file in FILES if file.endswith(".js") for name in
              re.findall(r'find\("([^"]+)"\)', (PAGE / file).read_text())}  # fmt: skip
    assert wanted <= on_page
    assert set(re.findall(r'(?:src|href)="/([^"]+)"', page)) <= set(FILES)


def test_only_the_pages_own_files_are_served(server: RunningServer) -> None:
    for path in ("/app.py", "/../app.py", "/%2e%2e/app.py", "/page/index.html", "/__init__.py"):
        assert server.get(path).status_code == 404
