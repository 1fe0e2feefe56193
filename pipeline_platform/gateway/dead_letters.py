"""GET /v1/dead-letters, /v1/dead-letters/{id} and /v1/dead-letters/export: what was refused, and why. For admins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from datetime import datetime
from functools import partial
from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Depends, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from pipeline_platform.core.rejections import Reason
from pipeline_platform.gateway.access import EdgeOf, Note, scoped
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.moments import Moment
from pipeline_platform.gateway.openapi import PROBLEMS
from pipeline_platform.gateway.parameters import WholeNumber
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.gateway.questions import (
    LAST_ID,
    Question,
    ReceiptWord,
    RowId,
    Word,
    Words,
    as_made,
    unknown_row,
)
from pipeline_platform.queue.keys import Key
from pipeline_platform.warehouse.dead_letters import Letter, LetterFilter, get_letter, list_letters, stream_letters

# Payloads may be private, hence the scope.
router = APIRouter(prefix="/v1", tags=["dead letters"], responses=PROBLEMS)
Admin = Annotated[Key, Depends(scoped("admin"))]

SHOWN = 500  # characters of a payload in a list
CHUNK = 64 * 2**10  # bytes of an export that are sent at once
EXPORT_SECONDS = 600.0  # then it ends, complete or not: it holds a connection to the warehouse and a snapshot
NDJSON = "application/x-ndjson"

LetterState = Literal["open", "replaying", "replayed", "discarded"]


class LetterParts(BaseModel):
    """Which dead letters; a parameter that may be given several times means any of its values."""

    stream: Words = Field([], description="Its stream; several times for several.")
    reason: list[Reason] = Field([], max_length=20, description="Why it was refused; several times for several.")
    state: list[LetterState] = Field([], max_length=4, description="Several times for several. Default: all.")
    field: Words = Field([], description="The field that is to blame; several times for several.")
    receipt: ReceiptWord | None = Field(None, description="The receipt of the request it came in.")
    batch: WholeNumber | None = Field(None, ge=1, le=LAST_ID, description="The batch that refused it first.")
    since: Moment | None = Field(None, description="Last refused then or later: RFC 3339 with offset, or epoch ms.")
    until: Moment | None = Field(None, description="Last refused before.")
    text: Word | None = Field(None, description="Somewhere in payload or message, whatever the case.")

    def filter(self) -> LetterFilter:
        """As the warehouse has it."""
        return LetterFilter(
            streams=tuple(self.stream),
            reasons=tuple(self.reason),
            states=tuple(self.state),
            fields=tuple(self.field),
            receipt=self.receipt,
            text=self.text,
            batch_id=self.batch,
            since=self.since,
            until=self.until,
        )


class LetterQuestion(LetterParts, Question):
    """Which dead letters, and which page of them."""


class LetterDocument(BaseModel):
    """One refused event."""

    id: int
    stream: str
    reason: str
    field: str | None = Field(description="The field that is to blame; null for the whole event.")
    message: str
    payload: str = Field(description=f"The event as received; in a list its first {SHOWN} characters.")
    truncated: bool = Field(description="The payload is longer; the letter's own document has all of it.")
    stage: str
    state: LetterState
    attempts: int = Field(description="How often it was refused.")
    batch_id: int | None
    run_id: str | None
    receipt: str | None
    line: int | None = Field(description="Its place in the request, from 0.")
    replay_id: int | None
    replay_batch_id: int | None
    received_at: datetime | None
    first_failed_at: datetime
    last_failed_at: datetime
    settled_at: datetime | None
    links: dict[str, str]


class LetterList(BaseModel):
    """A page of dead letters, the newest first."""

    data: list[LetterDocument]
    next_cursor: str | None


@router.get("/dead-letters", summary="Refused events", response_model=LetterList)
def read_dead_letters(edge: EdgeOf, asked: Annotated[LetterQuestion, Query()], key: Admin, note: Note) -> Response:
    """The newest first."""
    which, place = asked.filter(), asked.place()
    edge.refuse_strangers(which.streams)
    with edge.heavy.place():
        page = list_letters(edge.engine, which, limit=asked.limit, after_id=place)
        letters = [letter_document(letter, edge.dagster_link, shown=SHOWN) for letter in page.letters]
        note("dead-letters-read", key, filter=which.document(), count=len(letters))
        return as_made(LetterList(data=letters, next_cursor=asked.following(page.next)))


@router.get(
    "/dead-letters/export",
    summary="All matching refused events as NDJSON",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}, "description": "A letter a line."}},
)
def export_dead_letters(
    edge: EdgeOf, asked: Annotated[LetterParts, Query()], key: Admin, note: Note
) -> StreamingResponse:
    """The oldest first, payloads in full, from one snapshot, however many there are. Two exports at a time.

    What is not read within ten minutes breaks off: an answer without its end is not complete.
    """
    edge.refuse_strangers(asked.stream)
    if not edge.exports.acquire(blocking=False):
        detail = "As many exports as may be are under way; ask again when one is done."
        raise ProblemError("rate-limited", detail, headers={"Retry-After": "10"})
    chunks = _chunks(edge, asked.filter(), partial(note, "dead-letters-exported", key))
    first = next(chunks)  # a warehouse that is away is a 503, not an answer that breaks off
    return _Export(first, chunks)


@router.get("/dead-letters/{id}", summary="One refused event in full")
def read_dead_letter(edge: EdgeOf, id: RowId, key: Admin, note: Note) -> LetterDocument:
    """With all of its payload."""
    letter = get_letter(edge.engine, id)
    if letter is None:
        raise unknown_row("dead letter", id)
    note("dead-letters-read", key, filter={"ids": [id]}, count=1)
    return letter_document(letter, edge.dagster_link)


def _chunks(edge: Edge, which: LetterFilter, note: Callable[..., None]) -> Generator[bytes]:
    """The export in pieces, an empty one at the end. Gives its place to the next export when it is over or dropped.

    The audit hears how many letters were read, whether or not somebody went away meanwhile.
    """
    count, outcome = 0, "failed"
    try:
        lines: list[bytes] = []
        size = 0
        for letter in stream_letters(edge.engine, which):
            line = letter_document(letter, edge.dagster_link).model_dump_json(exclude={"truncated", "links"})
            lines.append(line.encode() + b"\n")
            count += 1
            size += len(lines[-1])
            if size >= CHUNK:
                yield b"".join(lines)
                lines, size = [], 0
        yield b"".join(lines)
        outcome = "ok"
    finally:
        edge.exports.release()
        note(outcome=outcome, filter=which.document(), count=count)


class _Export(StreamingResponse):
    """Ends the query when the reader is gone or too slow; Starlette would leave that to the garbage collector."""

    def __init__(self, first: bytes, rest: Generator[bytes]) -> None:
        super().__init__(itertools.chain([first], rest), media_type=NDJSON)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with anyio.move_on_after(EXPORT_SECONDS):
                await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._rest.close)


def letter_document(letter: Letter, dagster: str, *, shown: int | None = None) -> LetterDocument:
    """The letter as JSON, with at most `shown` characters of its payload."""
    links = {"self": f"/v1/dead-letters/{letter.id}", "stream": f"/v1/streams/{letter.stream}"}
    if letter.batch_id is not None:
        links["batch"] = f"/v1/assets/{letter.batch_id}"
    if letter.run_id is not None:
        links["run"] = f"{dagster}/runs/{letter.run_id}"
    if letter.receipt is not None:
        links["receipt"] = f"/v1/receipts/{letter.receipt}"
    if letter.replay_id is not None:
        links["replay"] = f"/v1/replays/{letter.replay_id}"
    truncated = shown is not None and len(letter.payload) > shown
    return LetterDocument.model_validate(
        {
            **{name: getattr(letter, name) for name in Letter.__dataclass_fields__},
            "payload": letter.payload[:shown] if truncated else letter.payload,
            "truncated": truncated,
            "links": links,
        }
    )
