"""GET /v1/audit: who did what, from where, and how it ended. For admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from pipeline_platform.access.audit import EVENTS
from pipeline_platform.gateway.access import EdgeOf, scoped
from pipeline_platform.gateway.moments import Moment
from pipeline_platform.gateway.openapi import PROBLEMS
from pipeline_platform.gateway.questions import Question, Word
from pipeline_platform.warehouse.audit import AuditFilter, search

router = APIRouter(prefix="/v1", tags=["audit"], dependencies=[Depends(scoped("admin"))], responses=PROBLEMS)


class AuditQuestion(Question):
    """Which rows; `event` given several times means any of them."""

    event: list[Word] = Field([], max_length=len(EVENTS), description=f"One of {', '.join(EVENTS)}.")
    actor: Word | None = Field(None, description="`key <id>`, `user <name>` or `os <name>`.")
    outcome: Word | None = Field(None, description="ok, refused or failed.")
    since: Moment | None = Field(None, description="Then or later: RFC 3339 with offset, or epoch ms.")
    until: Moment | None = Field(None, description="Before.")

    def filter(self) -> AuditFilter:
        """As the warehouse has it."""
        return AuditFilter(tuple(self.event), self.actor, self.outcome, self.since, self.until)


class AuditDocument(BaseModel):
    """One thing that happened."""

    id: int
    at: datetime
    event: str
    actor: str = Field(description="`key <id>`, `user <name>` or `os <name>`; empty: nobody knows.")
    actor_role: str = Field(description="The role, or the scopes, that the actor had.")
    address: str
    outcome: str
    detail: dict[str, Any]


class AuditList(BaseModel):
    """A page of rows, the newest first."""

    data: list[AuditDocument]
    next_cursor: str | None


@router.get("/audit", summary="Who did what")
def read_audit(edge: EdgeOf, asked: Annotated[AuditQuestion, Query()]) -> AuditList:
    """In the order in which rows were written, the newest first."""
    # The reader may not look into this table, so it is asked as the loader.
    found = search(edge.writer, asked.filter(), limit=asked.limit + 1, below_id=asked.place())
    page = found[: asked.limit]
    following = page[-1].id if len(found) > asked.limit else None
    rows = [AuditDocument.model_validate(row, from_attributes=True) for row in page]
    return AuditList(data=rows, next_cursor=asked.following(following))
