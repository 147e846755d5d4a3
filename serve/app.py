"""The HTTP application: the page, the API, health and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from live2diff_trt import __version__
from live2diff_trt.bundle.errors import Live2DiffError
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.shared_engine import SharedEngine
from live2diff_trt.serve.errors import OfferError, SessionError
from live2diff_trt.serve.guard import SUBPROTOCOL, Guard
from live2diff_trt.serve.hall import Hall
from live2diff_trt.serve.messages import Answer, Control, Done, Health, Offer, Problem, Status, StreamDescription
from live2diff_trt.serve.session import Session
from live2diff_trt.serve.session_socket import serve_session
from live2diff_trt.serve.settings import Limits, ServeSettings

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {"/": PAGE / "index.html", **{f"/{file.name}": file for file in sorted(PAGE.iterdir())}}
CONTROL_SECONDS = 30.0
"""A control waits for the frame at work, and for the turn of other sessions."""

_router = APIRouter()


def create_app(engine: SharedEngine, settings: ServeSettings, limits: Limits | None = None) -> FastAPI:
    """Return the application.

    Args:
        engine: that all sessions share; its owner closes it, after the application.
        settings: of the server.
        limits: for each visitor.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.hall = Hall(engine, settings, limits)
        yield
        app.state.hall.end_all()

    app = FastAPI(
        title="live2diff-trt",
        version=__version__,
        description="Streams a visitor's video through a diffusion model. A session lives as long as its WebSocket, "
        "`/api/session`, which is described in docs/serve.md.",
        lifespan=lifespan,
        docs_url=None,  # their scripts would come from another server
        redoc_url=None,
    )
    app.include_router(_router)
    app.add_exception_handler(Live2DiffError, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_refusal)
    app.add_middleware(Guard, settings=settings, limits=limits)
    return app


def _hall(request: Request) -> Hall:
    hall: Hall = request.app.state.hall
    return hall


def _session(session: str, request: Request) -> Session:
    return _hall(request).find(session)


TheHall = Annotated[Hall, Depends(_hall)]
TheSession = Annotated[Session, Depends(_session)]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing or wrong"},
    403: {"model": Problem, "description": "Another server's page asks"},
}
_OF_A_SESSION: dict[int | str, dict[str, Any]] = {
    **_PROBLEMS,
    404: {"model": Problem, "description": "There is no such session"},
    "4XX": {"model": Problem, "description": "The request is none"},
}
_TO_A_SESSION: dict[int | str, dict[str, Any]] = {
    **_OF_A_SESSION,
    409: {"model": Problem, "description": "It can't do that, or not now: nothing was changed"},
    413: {"model": Problem, "description": "The request is too large"},
    422: {"model": Problem, "description": "That is not valid: nothing was changed"},
}
_token = Depends(HTTPBearer(auto_error=False, description="Needed if the server was started with a token"))


@_router.get("/healthz", tags=["server"])
async def healthz(hall: TheHall) -> Health:
    """Say that the server works."""
    lobby = hall.lobby
    return Health(version=__version__, seats=lobby.seats, seats_taken=lobby.taken, waiting=lobby.waiting)


@_router.get("/metrics", tags=["server"], responses=_PROBLEMS, response_class=PlainTextResponse, dependencies=[_token])
async def metrics(hall: TheHall) -> Response:
    """Return what is counted, for Prometheus."""
    return Response(hall.metrics.render(), media_type=hall.metrics.content_type)


@_router.get("/api/stream", tags=["server"], responses=_PROBLEMS, dependencies=[_token])
async def stream(hall: TheHall) -> StreamDescription:
    """Say what a session of this server is."""
    return hall.describe()


@_router.get("/api/sessions/{session}", tags=["session"], responses=_OF_A_SESSION, dependencies=[_token])
async def status(session: TheSession) -> Status:
    """Return a session as it is now."""
    return session.status()


@_router.post("/api/sessions/{session}/controls", tags=["session"], responses=_TO_A_SESSION, dependencies=[_token])
async def change(session: TheSession, control: Control) -> Done:
    """Change a session's stream from its next frame on, as a message of its WebSocket would."""
    answered: asyncio.Future[Live2DiffError | None] = asyncio.get_running_loop().create_future()
    session.put_control(control, lambda error: None if answered.done() else answered.set_result(error))
    try:
        error = await asyncio.wait_for(answered, CONTROL_SECONDS)
    except asyncio.TimeoutError:
        raise SessionError("the session is over, or too busy", "Try again") from None
    if error is not None:
        raise error
    return Done(control=control.type)


@_router.post("/api/sessions/{session}/offer", tags=["session"], responses=_TO_A_SESSION, dependencies=[_token])
async def offer(session: TheSession, offer: Offer, hall: TheHall) -> Answer:
    """Answer a WebRTC offer: video comes in by it, and changed video goes out."""
    return Answer(sdp=await hall.answer(session, offer.sdp))


@_router.delete("/api/sessions/{session}", tags=["session"], status_code=204, responses=_OF_A_SESSION,
                dependencies=[_token])  # fmt: skip
async def end(session: TheSession) -> None:
    """End a session; its WebSocket is closed."""
    session.end(SessionError("the session was ended", "Open another one"))


@_router.websocket("/api/session")
async def open_session(socket: WebSocket) -> None:
    """Open a session. See docs/serve.md."""
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    await serve_session(socket, socket.app.state.hall)


def _give(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def give(_: Request) -> Response:
        return FileResponse(file)

    return give


for _path, _file in PAGE_FILES.items():
    _router.add_route(_path, _give(_file), include_in_schema=False)


async def _answer_problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Live2DiffError)
    return _problem(_status_of(error), error.problem, error.remedy)


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _problem(422, f"{place}: {first['msg']}"[:300], "Send what /openapi.json describes")


async def _answer_refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = _problem(error.status_code, str(error.detail), "Send what /openapi.json describes")
    answer.headers.update(error.headers or {})
    return answer


def _problem(code: int, problem: str, remedy: str) -> JSONResponse:
    return JSONResponse(Problem(type="error", problem=problem, remedy=remedy).model_dump(), code)


def _status_of(error: Live2DiffError) -> int:
    if isinstance(error, SessionError):
        return 404 if error.problem.startswith("there is no such") else 409
    if isinstance(error, ControlError):
        return 409
    return 422 if isinstance(error, OfferError) else 500
