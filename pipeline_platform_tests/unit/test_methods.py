"""HEAD, OPTIONS and Allow for any app: of one that streams and has paths that are like others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from fastapi import APIRouter, FastAPI, Response
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Message

from pipeline_platform.gateway.methods import Methods

MADE: list[str] = []


async def _endless() -> AsyncIterator[str]:
    try:
        while True:
            MADE.append("a piece")
            yield "piece"
            await asyncio.sleep(0)
    finally:
        MADE.append("closed")


def _app() -> FastAPI:
    router = APIRouter(prefix="/v1")

    @router.get("/rows/{number}")
    def row(number: str) -> str:
        return number

    @router.post("/rows/export")
    def export() -> str:
        return "done"

    @router.put("/rows/{number}/note")
    def put_note(number: str) -> str:
        return number

    @router.delete("/rows/{number}/note")
    def no_note(number: str) -> str:
        return number

    @router.get("/endless")
    def endless() -> StreamingResponse:
        return StreamingResponse(_endless(), headers={"X-Kind": "endless"})

    @router.get("/method", status_code=418)
    def method(request: Request) -> Response:
        return PlainTextResponse(request.method, 418, {"x-method": request.method})

    app: FastAPI = FastAPI(redirect_slashes=False, middleware=[Middleware(Methods, routes=lambda: app.routes)])
    app.include_router(router)
    return app


@dataclass
class Answer:
    """One answer as the server gets it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False


def ask(method: str, path: str) -> Answer:
    """The app's answer to one request."""
    answer = Answer()

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not answer.ended:
            return {"type": "http.request", "body": b""}
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert not answer.ended
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.ended = not message.get("more_body", False)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [], "http_version": "1.1"}
    asyncio.run(_app()(scope, receive, send))
    return answer


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/rows/1", "GET, HEAD, OPTIONS"),
        ("/v1/rows/export", "OPTIONS, POST"),
        ("/v1/rows/1/note", "DELETE, OPTIONS, PUT"),
        ("/v1/rows/export/note", "DELETE, OPTIONS, PUT"),
        ("/v1/endless", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_and_405_name_the_methods_of_a_path(path: str, allow: str) -> None:
    told = ask("OPTIONS", path)
    assert (told.status, told.headers["allow"], told.body) == (204, allow, b"")
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"} - set(allow.split(", ")):
        refused = ask(method, path)
        assert (refused.status, refused.headers["allow"]) == (405, allow), method
        assert allow in refused.body.decode()


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "GET", "PUT"])
@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/rows", "/v1/rows/1/", "*"])
def test_where_there_is_nothing_there_are_no_methods(method: str, path: str) -> None:
    answer = ask(method, path)
    assert (answer.status, "allow" in answer.headers) == (404, False)


@pytest.mark.parametrize(("path", "status"), [("/v1/method", 418), ("/v1/rows/7", 200)])
def test_head_is_get_without_its_body(path: str, status: int) -> None:
    get, head = ask("GET", path), ask("HEAD", path)
    assert (head.status, head.body) == (get.status, b"") == (status, b"")
    assert head.headers == get.headers
    assert head.headers.get("x-method", "GET") == "GET"


def test_a_body_without_end_is_not_made_for_a_head() -> None:
    MADE.clear()
    head = ask("HEAD", "/v1/endless")
    assert (head.status, head.headers["x-kind"], head.body) == (200, "endless", b"")
    assert MADE[-1] == "closed"
    assert MADE.count("a piece") <= 2
