"""Every error of the gateway as an RFC 9457 problem document."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline_platform.core.mistakes import in_words
from pipeline_platform.errors import (
    PermanentError,
    QueueFullError,
    QueueRefusedError,
    QueueUnavailableError,
    TransientError,
)

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:pipeline-platform:problem:"
_log = logging.getLogger(__name__)

# What can go wrong: the last part of `type`, its status and its title.
PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed-body": (400, "The body is not what its headers say"),
    "malformed-event": (400, "An event is not acceptable JSON"),
    "bad-header": (400, "A header is not usable"),
    "bad-cursor": (400, "The cursor is not one of ours"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "The API key is not good for this"),
    "unknown-stream": (404, "There is no such stream"),
    "unknown-receipt": (404, "There is no such receipt"),
    "unknown-row": (404, "There is no row with this number"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "timeout": (408, "The body did not arrive in time"),
    "idempotency-conflict": (409, "The Idempotency-Key was used for another body"),
    "nothing-to-replay": (409, "There is nothing to replay"),
    "too-large": (413, "The request is too large"),
    "unsupported-media-type": (415, "The content type or encoding is not supported"),
    "misdirected": (421, "The request names another host"),
    "bad-parameter": (422, "A parameter is not usable"),
    "contract": (422, "Events break the stream's contract"),
    "rate-limited": (429, "Too many requests"),
    "internal": (500, "Something went wrong on our side"),
    "busy": (503, "The queue is full for now"),
    "queue-away": (503, "The queue cannot be reached"),
    "warehouse-away": (503, "The warehouse cannot be reached"),
}


class ProblemError(Exception):
    """A refusal with everything its document says; `extras` become members of the document."""

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **extras: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, self.title = PROBLEMS[kind]
        self.detail = detail
        self.headers = dict(headers or {})
        self.extras = extras

    def document(self, instance: str) -> bytes:
        """The problem document as JSON."""
        body = {"type": TYPE + self.kind, "title": self.title, "status": self.status, "detail": self.detail}
        return orjson.dumps({**body, "instance": instance[:200], **self.extras})


class WarehouseProblemError(ProblemError):
    """The warehouse cannot answer; ingest goes on meanwhile."""

    def __init__(self) -> None:
        detail = "The warehouse cannot answer at the moment. Events are accepted meanwhile; ask again soon."
        super().__init__("warehouse-away", detail, headers={"Retry-After": "5"})


def shown(text: str, limit: int = 80) -> str:
    """Somebody's text, short and printable, for an answer."""
    clean = "".join(sign if sign.isprintable() else "?" for sign in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def problem_of(error: Exception) -> ProblemError:
    """Any exception as a problem."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, HTTPException):
        kinds = {404: "not-found", 405: "method-not-allowed"}
        kind = kinds.get(error.status_code, "malformed-body" if error.status_code < 500 else "internal")
        details = {404: "There is nothing at this address; see /docs.", 405: "See /docs for what is allowed here."}
        detail = details.get(error.status_code, "The request could not be read.")
        return ProblemError(kind, detail, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return _validation(error.errors())
    if isinstance(error, QueueFullError):
        return ProblemError("busy", "The queue's memory is full for now.", headers={"Retry-After": "5"})
    if isinstance(error, QueueUnavailableError | QueueRefusedError):
        return ProblemError("queue-away", "The queue cannot be reached. Ask again.", headers={"Retry-After": "2"})
    # What is left of the platform's own errors comes from the warehouse: away, overloaded or not migrated.
    if isinstance(error, TransientError | PermanentError):
        _log.warning("the warehouse would not answer: %s", error)
        return WarehouseProblemError()
    return ProblemError("internal", "The error was logged. Please tell whoever runs this.")


def _validation(errors: Sequence[Any]) -> ProblemError:
    """Pydantic's findings, without the values, which may be anything."""
    found = [
        {
            "field": shown(".".join(str(part) for part in error["loc"][1:])),
            "message": shown(in_words(error, "/docs"), 200),
        }
        for error in errors[:20]
    ]
    where, message, loc = found[0]["field"] or "The body", found[0]["message"].rstrip("."), errors[0]["loc"]
    detail = f"{message}." if message[:1].isupper() else f"{where}: {message}."  # on several fields: a whole sentence
    named: dict[str, Any] = {} if loc[0] == "body" else {"parameter": shown(str(loc[1]))}
    return ProblemError("bad-parameter", detail, errors=found, **named)


def problem_response(error: ProblemError, instance: str) -> Response:
    """The answer that refuses."""
    return Response(error.document(instance), error.status, error.headers, MEDIA_TYPE)


async def _handle(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), request.url.path)


def install_problem_handlers(app: Starlette) -> None:
    """Makes every error of the app a problem document."""
    for kind in (ProblemError, HTTPException, RequestValidationError, TransientError, PermanentError, Exception):
        app.add_exception_handler(kind, _handle)


def seconds(value: float) -> str:
    """Whole seconds for Retry-After, at least 1 and at most 300."""
    return str(max(1, min(300, math.ceil(value))))
