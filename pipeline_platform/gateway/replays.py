"""GET /v1/replays and /v1/replays/{id}: who replayed or discarded which dead letters, and what came of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from pipeline_platform.gateway.access import EdgeOf, scoped
from pipeline_platform.gateway.openapi import PROBLEMS
from pipeline_platform.gateway.questions import Question, RowId, as_made, unknown_row
from pipeline_platform.warehouse.replays import Replay, get_replay, list_replays

# A filter or an edit may quote what is private: as the dead letters themselves, for admins.
router = APIRouter(prefix="/v1", tags=["dead letters"], dependencies=[Depends(scoped("admin"))], responses=PROBLEMS)


class ReplayDocument(BaseModel):
    """One request to replay or discard dead letters, or to try a row of `assets` again."""

    id: int
    action: Literal["replay", "discard", "retry"]
    stream: str | None = Field(description="Where the filter names one.")
    filter: dict[str, Any] = Field(description="Which dead letters were asked for.")
    edit: dict[str, Any] | None
    requested_by: str = Field(description="`key <id>`, `user <name>`, or the CLI's system user.")
    note: str | None
    state: Literal["running", "done"]
    matched: int = Field(description="Dead letters that it took.")
    passed: int = Field(description="Events that are in the facts now.")
    negative: int = Field(description="Events dropped for a negative measure.")
    failed: int = Field(description="Refused again; they are open again.")
    requested_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class ReplayList(BaseModel):
    """A page of requests, the newest first."""

    data: list[ReplayDocument]
    next_cursor: str | None


class ReplayQuestion(Question):
    """Which requests: all of them."""


@router.get("/replays", summary="The audit of dead letters", response_model=ReplayList)
def read_replays(edge: EdgeOf, asked: Annotated[ReplayQuestion, Query()]) -> Response:
    """Every request that replayed or discarded some, the newest first."""
    place = asked.place()
    with edge.heavy.place():
        found = list_replays(edge.engine, limit=asked.limit + 1, before_id=place)
        page = found[: asked.limit]
        following = page[-1].id if len(found) > asked.limit else None
        return as_made(ReplayList(data=list(map(replay_document, page)), next_cursor=asked.following(following)))


@router.get("/replays/{id}", summary="One request and how far it is")
def read_replay(edge: EdgeOf, id: RowId) -> ReplayDocument:
    """It is `done` once all of its batches are settled."""
    replay = get_replay(edge.engine, id)
    if replay is None:
        raise unknown_row("replay", id)
    return replay_document(replay)


def replay_document(replay: Replay) -> ReplayDocument:
    """The request as JSON."""
    links = {"self": f"/v1/replays/{replay.id}"}
    if replay.action == "replay":
        links["batches"] = f"/v1/assets?replay={replay.id}"
    return ReplayDocument.model_validate({**asdict(replay), "links": links})
