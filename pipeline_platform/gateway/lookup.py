"""GET /v1/receipts/{receipt}, /v1/streams and /v1/streams/{stream}; POST /v1/streams/{stream}/resume."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from pipeline_platform.gateway.access import EdgeOf, Note, scoped
from pipeline_platform.gateway.admission import actor_of
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.openapi import PROBLEMS
from pipeline_platform.gateway.receipts import ReceiptDocument, parse_receipt, unknown_receipt
from pipeline_platform.gateway.stats_board import Totals
from pipeline_platform.queue.keys import Key
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.health import stream_health
from pipeline_platform.warehouse.lateness import lateness
from pipeline_platform.warehouse.ledger import Ledger

router = APIRouter(prefix="/v1", tags=["streams"], responses=PROBLEMS)


class StreamSummary(BaseModel):
    """A declared stream."""

    name: str
    description: str
    dimensions: list[str]
    measures: list[str]
    spec: dict[str, Any] = Field(description="As declared, with every default spelled out.")
    links: dict[str, str]


class StreamList(BaseModel):
    """The declared streams."""

    streams: list[StreamSummary]


class BreakerDocument(BaseModel):
    """A stream's breaker: whether rejects have paused its planning."""

    state: Literal["closed", "open", "half_open"]
    reason: str | None = Field(description="Why it last changed.")
    changed_at: datetime | None
    probe_at: datetime | None = Field(description="When an open breaker lets a small batch through.")
    openings: int = Field(description="Times it has opened in a row; each doubles the pause.")
    examples: list[dict[str, Any]] = Field(description="Up to three of the rejects that opened it.")


class HealthDocument(BaseModel):
    """How a stream is."""

    state: Literal["ok", "failing", "paused", "blocked"] = Field(
        description="failing: batches fail and are tried again; paused: the breaker is open, what is accepted waits; "
        "blocked: batches fail until somebody acts."
    )
    since: datetime | None
    message: str | None
    failing_batches: int
    next_attempt_at: datetime | None
    breaker: BreakerDocument


class ResumeDocument(BaseModel):
    """What resuming did."""

    stream: str
    resumed: bool = Field(description="False: the breaker was closed already.")
    health: HealthDocument


class LateDocument(BaseModel):
    """What came late, and the hours and days that it touched."""

    events_late: int = Field(description="In the last 24 hours: events older than the stream's `late_after`.")
    events_behind: int = Field(description="In the last 24 hours: events of an hour that was rolled up already.")
    windows_corrected: int = Field(description="In the last 24 hours: hours and days that were rolled up again.")
    windows_waiting: int = Field(description="Hours and days with events that are not rolled up yet.")
    windows_to_correct: int = Field(description="Hours and days that late events have changed since their rollup.")


class StreamDocument(StreamSummary):
    """A declared stream and where it stands."""

    totals: Totals
    backlog_events: int = Field(description="Accepted and not settled yet.")
    watermark: str = Field(description="Every request with a receipt below this id is settled.")
    last_loaded_at: datetime | None
    health: HealthDocument
    late: LateDocument
    lag_seconds: float = Field(description="Age of the oldest request that is not settled; 0 without one.")


@router.get("/receipts/{receipt}", summary="What became of an accepted request")
def read_receipt(
    edge: EdgeOf,
    # One look into an index, and who waits asks often.
    key: Annotated[Key, Depends(scoped("ingest", "read", narrow=True, cost=0.2))],
    receipt: str = Path(
        description="As the 202 gave it, such as `telemetry.1763712000000-0.3f9c61d07b1e4a83c5d2e0f4816b7a39`."
    ),
) -> ReceiptDocument:
    """Its state, counts, batch, run and times. Keys without the scope `read` see their own requests, and less of them.

    With it the tag at the end may be left out.
    """
    asked = parse_receipt(receipt)
    if asked.receipt.stream not in edge.specs or not edge.tags.may_see(key, asked):
        raise unknown_receipt(receipt)
    return edge.receipts.find(asked, whole=key.allows("read"))


@router.get("/streams", summary="The declared streams")
def list_streams(edge: EdgeOf, key: Annotated[Key, Depends(scoped("ingest", "read", narrow=True))]) -> StreamList:
    """Their fields, specs and links; those that the key is good for."""
    return StreamList(streams=[StreamSummary(**_summary(edge, name)) for name in sorted(edge.specs) if key.sees(name)])


@router.get("/streams/{stream}", summary="One stream: its spec and where it stands")
def read_stream(edge: EdgeOf, stream: str, _: object = Depends(scoped("read"))) -> StreamDocument:
    """Totals are events since the stream began."""
    edge.spec(stream)
    ledger = Ledger(edge.engine)
    totals, watermark = ledger.totals(stream), ledger.watermark(stream)
    position = edge.pressure.positions.get(stream)
    oldest = position.oldest_id if position else None
    return StreamDocument(
        **_summary(edge, stream),
        totals=Totals(
            accepted=position.accepted_events if position else totals.events_read,
            read=totals.events_read,
            loaded=totals.events_loaded,
            negative=totals.events_negative,
            rejected=totals.events_rejected,
        ),
        backlog_events=position.events if position else 0,
        watermark=str(watermark),
        last_loaded_at=totals.last_loaded_at,
        health=_health(edge, stream),
        late=_late(edge, stream),
        lag_seconds=max(0.0, time.time() - oldest.ms / 1000) if oldest else 0.0,
    )


@router.post("/streams/{stream}/resume", summary="Close the stream's breaker")
def resume_stream(
    edge: EdgeOf, stream: str, key: Annotated[Key, Depends(scoped("operate"))], note: Note
) -> ResumeDocument:
    """Goes on with planning whatever was rejected; harmless where the breaker is closed."""
    edge.spec(stream)
    resumed = Breakers(edge.writer).resume(stream, actor_of(key), datetime.now(UTC))
    note("resume", key, stream=stream, resumed=resumed)
    return ResumeDocument(stream=stream, resumed=resumed, health=_health(edge, stream))


def _health(edge: Edge, stream: str) -> HealthDocument:
    health = stream_health(edge.engine, stream)
    breaker = health.breaker
    return HealthDocument(
        state=health.state.value,
        since=health.since,
        message=health.message,
        failing_batches=health.failing_batches,
        next_attempt_at=health.next_attempt_at,
        breaker=BreakerDocument(
            state=breaker.state.value,
            reason=breaker.reason,
            changed_at=breaker.changed_at,
            probe_at=breaker.probe_at,
            openings=breaker.openings,
            # Without the payloads: those are for keys with the scope admin, at /v1/dead-letters.
            examples=[{name: each[name] for name in each if name != "payload"} for each in breaker.examples],
        ),
    )


def _late(edge: Edge, stream: str) -> LateDocument:
    found = lateness(edge.engine, stream)
    return LateDocument(
        events_late=found.late,
        events_behind=found.behind,
        windows_corrected=found.corrected,
        windows_waiting=found.marked,
        windows_to_correct=found.to_correct,
    )


def _summary(edge: Edge, name: str) -> dict[str, Any]:
    spec, here = edge.specs[name], f"/v1/streams/{name}"
    return {
        "name": name,
        "description": spec.description,
        "dimensions": list(spec.dimensions),
        "measures": list(spec.measures),
        "spec": spec.model_dump(mode="json"),
        "links": {"self": here, "events": f"{here}/events", "aggregates": f"{here}/aggregates"},
    }
