"""GET /v1/alerts: what somebody should know, and who was told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from pipeline_platform.gateway.access import EdgeOf, Note, scoped
from pipeline_platform.gateway.openapi import PROBLEMS
from pipeline_platform.gateway.parameters import WholeNumber
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.gateway.questions import as_made
from pipeline_platform.queue.keys import Key
from pipeline_platform.warehouse.alert_views import AlertQuery, ListedAlert, list_alerts, open_counts

router = APIRouter(prefix="/v1", tags=["alerts"], responses=PROBLEMS)
_LAST_ID = 2**63 - 1


class DeliveryDocument(BaseModel):
    """What became of one message: an alert's raise or its end, to one route."""

    route: str
    phase: Literal["raised", "resolved"]
    state: Literal["pending", "sent", "dropped"]
    attempts: int
    error: str | None
    not_before: datetime | None
    sent_at: datetime | None


class AlertDocument(BaseModel):
    """One thing to know."""

    id: int
    key: str = Field(description="What it is about; open alerts with one key are one alert.")
    kind: str
    severity: Literal["info", "warning", "critical"]
    stream: str | None
    title: str
    body: str
    sample: list[Any] | None = Field(description="Examples; their payloads only for keys with the scope admin.")
    times: int = Field(description="How often it was raised since it opened.")
    raised_at: datetime
    last_raised_at: datetime
    resolved_at: datetime | None
    deliveries: list[DeliveryDocument]


class AlertList(BaseModel):
    """A page of alerts, the newest first."""

    data: list[AlertDocument]
    next_cursor: str | None
    open: dict[str, int] = Field(description="All open alerts by severity, whatever the filters.")


@router.get("/alerts", summary="Alerts and their deliveries", response_model=AlertList)
def read_alerts(
    edge: EdgeOf,
    key: Annotated[Key, Depends(scoped("read"))],
    note: Note,
    state: Annotated[Literal["open", "all"], Query(description="open: only those that last.")] = "open",
    stream: Annotated[str | None, Query(description="Only those of this stream.")] = None,
    severity: Annotated[Literal["info", "warning", "critical"] | None, Query()] = None,
    kind: Annotated[
        str | None, Query(max_length=60, pattern="^[a-z0-9_]+$", description="Such as breaker_open.")
    ] = None,
    limit: Annotated[WholeNumber, Query(ge=1, le=1000, description="Alerts a page.")] = 100,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """The newest first."""
    if stream is not None:
        edge.refuse_strangers([stream])
    asked = AlertQuery(state == "open", stream, severity, kind, _before(cursor), limit + 1)
    payloads = "admin" in key.scopes
    with edge.heavy.place():
        found = list_alerts(edge.engine, asked)
        page = found[:limit]
        if payloads and (samples := sum(isinstance(alert.sample, list) for alert in page)):
            note("dead-letters-read", key, filter={"alerts": state, "stream": stream}, count=samples)
        return as_made(
            AlertList(
                data=[_document(alert, payloads=payloads) for alert in page],
                next_cursor=str(page[-1].id) if len(found) > limit else None,
                open=open_counts(edge.engine),
            )
        )


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 19 and int(cursor) <= _LAST_ID):
        raise ProblemError("bad-cursor", "The cursor does not belong to this query; take it from the page before.")
    return int(cursor)


def _document(alert: ListedAlert, *, payloads: bool) -> AlertDocument:
    sample = alert.sample
    if isinstance(sample, list) and not payloads:
        sample = [
            {name: each[name] for name in each if name != "payload"} if isinstance(each, dict) else each
            for each in sample
        ]
    deliveries = [DeliveryDocument.model_validate(each, from_attributes=True) for each in alert.deliveries]
    return AlertDocument.model_validate({**alert.__dict__, "sample": sample, "deliveries": deliveries})
