"""Small JSON bodies of requests that FastAPI reads: of callers that may, bounded, without what no reader agrees on.

FastAPI alone reads a body of any size and of anybody before it looks at the key, and lets through NaN, lone surrogates
and NUL, which the warehouse has not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import Message

from pipeline_platform.gateway.access import Admission
from pipeline_platform.gateway.admission import headers_by_name
from pipeline_platform.gateway.body import DisconnectedError, coding_of, media_type_of, read_body
from pipeline_platform.gateway.json_checks import why_ambiguous, why_not_json
from pipeline_platform.gateway.problems import ProblemError

MOST_BYTES = 512 * 2**10  # ten thousand ids fit in


class SmallBodies(APIRoute):
    """A route whose body is read when the caller is admitted, and checked before FastAPI sees it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check."""
        handle = super().get_route_handler()
        admissions = list(_admissions(self.dependant))
        assert admissions or "POST" not in (self.methods or ()), f"{self.path} takes bodies of anybody"

        async def checked(request: Request) -> Response:
            if request.method != "POST":
                return await handle(request)
            for admission in admissions:
                await admission(request)
            headers = headers_by_name(request.scope["headers"])
            try:
                body = await read_body(request.receive, headers.get(b"content-length", b""), MOST_BYTES)
            except DisconnectedError:
                return Response(status_code=499)
            if body:
                _check_headers(headers)
                _check(body)
            replayed = False

            async def receive() -> Message:
                nonlocal replayed
                if replayed:
                    return await request.receive()
                replayed = True
                return {"type": "http.request", "body": body, "more_body": False}

            return await handle(Request(request.scope, receive))

        return checked


def _admissions(dependant: Dependant) -> Iterator[Admission]:
    for part in dependant.dependencies:
        if isinstance(part.call, Admission):
            yield part.call
        yield from _admissions(part)


def _check_headers(headers: Mapping[bytes, bytes]) -> None:
    supported = ("application/json",)
    if not media_type_of(headers.get(b"content-type", b""), supported).json:
        detail = "Send application/json, or a type that ends in +json."
        raise ProblemError("unsupported-media-type", detail, headers={"Accept-Post": ", ".join(supported)})
    if coding_of(headers.get(b"content-encoding", b"")):
        detail = "Send it as it is: only events may be compressed."
        raise ProblemError("unsupported-media-type", detail, headers={"Accept-Encoding": "identity"})


def _check(body: bytes) -> None:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = why_not_json(body, error)
        raise ProblemError("malformed-body", f"The body is no JSON that can be used: {reason}") from None
    if ambiguous := why_ambiguous(body):
        raise ProblemError("malformed-body", f"The body is no JSON that can be used: {ambiguous}")
    if b"\\u0000" in body:
        raise ProblemError("malformed-body", "The body holds a NUL character (\\u0000), which no event can.")
