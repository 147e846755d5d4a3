from __future__ import annotations

import re

import pytest

from live2diff_trt.serve.errors import ServeError
from live2diff_trt.serve.settings import Limits, ServeSettings, is_local_name, make_token


def test_only_this_machine_is_let_in_without_a_token() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert ServeSettings(host=host).is_local
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com", ""):
        with pytest.raises(ServeError, match="Pass a token"):
            ServeSettings(host=host)
        assert not ServeSettings(host=host, token="x" * 16).is_local


@pytest.mark.parametrize("token", ["", "short", "with spaces in between them", "käsekäsekäsekäse", "x" * 257])
def test_a_token_must_be_long_and_plain(token: str) -> None:
    with pytest.raises(ServeError, match="openssl rand"):
        ServeSettings(token=token)


def test_a_made_token_is_a_token() -> None:
    made = {make_token() for _ in range(50)}
    assert len(made) == 50
    assert all(ServeSettings(host="0.0.0.0", token=token) for token in made)
    assert all(re.fullmatch(r"[\w-]{32}", token) for token in made)


@pytest.mark.parametrize("changes", [{"max_sessions": 0}, {"max_waiting": -1}, {"origins": ("example.com",)},
                                     {"origins": ("https://example.com/path",)}])  # fmt: skip
def test_what_can_not_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ServeError):
        ServeSettings(**changes)  # type: ignore[arg-type]


def test_names_of_this_machine() -> None:
    assert is_local_name("[::1]")
    assert not is_local_name("127.0.0.1.example.com")


def test_a_vanished_visitor_is_noticed_within_5_seconds() -> None:
    assert Limits().ping_seconds + Limits().pong_seconds < 5
