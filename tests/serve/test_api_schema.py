"""What /openapi.json says is true: schemathesis makes requests of it, valid ones and others, and checks the answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema

from live2diff_trt.serve.app import create_app
from live2diff_trt.serve.settings import Limits, ServeSettings
from tests.serve.made_up_server import PlainEngine, RunningServer, Visitor, picture

TOKEN = "a-token-of-a-test-123"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
FEW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    """A session on a server with a token, which streams."""
    limits = Limits(controls_per_second=1000)
    with (
        RunningServer(PlainEngine(), ServeSettings(port=0, token=TOKEN, webrtc=False), limits) as server,
        server.visit(additional_headers=AUTHORISED) as visitor,
    ):
        visitor.stream(picture())
        yield visitor


@pytest.fixture(scope="module")
def described(visitor: Visitor) -> BaseSchema:
    schema: BaseSchema = schemathesis.openapi.from_url(f"{visitor.server.address}/openapi.json")
    return schema


def operation_names() -> list[str]:
    app = create_app(PlainEngine(), ServeSettings(), Limits())
    return [f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", operation_names())
def test_requests_are_answered_as_described(
    described: BaseSchema, visitor: Visitor, name: str, mode: GenerationMode
) -> None:
    method, path = name.split()
    operation = described[path][method]
    if mode is GenerationMode.NEGATIVE and method != "POST":
        pytest.skip("nothing in it can be wrong")

    @FEW
    @given(case=operation.as_strategy(generation_mode=mode), is_ours=st.booleans())
    def check(case: Any, is_ours: bool) -> None:
        if is_ours and name.endswith("/controls"):
            case.path_parameters["session"] = visitor.name
        case.headers.update(AUTHORISED)
        case.call_and_validate()

    check()
