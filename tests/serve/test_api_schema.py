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


def kinds_of_requests() -> list[tuple[str, str, GenerationMode]]:
    """Return method, path and mode; only a body can be wrong."""
    app = create_app(PlainEngine(), ServeSettings(), Limits())
    operations = [(method, path) for path, methods in app.openapi()["paths"].items() for method in methods]
    return [(method, path, GenerationMode.POSITIVE) for method, path in operations] + [
        (method, path, GenerationMode.NEGATIVE) for method, path in operations if method == "post"
    ]


@pytest.mark.parametrize(("method", "path", "mode"), kinds_of_requests())
def test_requests_are_answered_as_described(
    described: BaseSchema, visitor: Visitor, method: str, path: str, mode: GenerationMode
) -> None:
    operation = described[path][method]

    @FEW
    @given(case=operation.as_strategy(generation_mode=mode), is_ours=st.booleans())
    def check(case: Any, is_ours: bool) -> None:
        if is_ours and path.endswith("/controls"):
            case.path_parameters["session"] = visitor.name
        case.headers.update(AUTHORISED)
        case.call_and_validate()

    check()
