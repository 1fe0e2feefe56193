"""GET /v1/assets and /v1/assets/{id}, POST /v1/assets/{id}/replay: the ledger of every unit of work."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from pipeline_platform.gateway.access import EdgeOf, Note, scoped
from pipeline_platform.gateway.admission import actor_of
from pipeline_platform.gateway.asset_documents import AssetDocument, AssetList, Kind, document, page
from pipeline_platform.gateway.bodies import SmallBodies
from pipeline_platform.gateway.moments import Moment
from pipeline_platform.gateway.openapi import BODY_PROBLEMS, NOTHING_TO_REPLAY, PROBLEMS
from pipeline_platform.gateway.parameters import WholeNumber
from pipeline_platform.gateway.questions import (
    LAST_ID,
    Question,
    RowId,
    Word,
    Words,
    own_streams,
    refused_as,
    unknown_row,
)
from pipeline_platform.gateway.receipts import parse_receipt
from pipeline_platform.gateway.replays import ReplayDocument, replay_document
from pipeline_platform.queue.keys import Key
from pipeline_platform.warehouse.asset_search import AssetFilter, get_asset, list_assets
from pipeline_platform.warehouse.replays import retry_asset

router = APIRouter(prefix="/v1", tags=["assets"], responses=PROBLEMS, route_class=SmallBodies)


class AssetQuestion(Question):
    """Which rows of `assets`; a parameter that may be given several times means any of its values."""

    kind: list[Kind] = Field([], max_length=3, description="ingest, replay or etl; several times for several.")
    stream: Words = Field([], description="Its stream; several times for several.")
    asset_key: Word | None = Field(None, description="The Dagster asset, such as `warehouse/telemetry_events`.")
    partition: Word | None = Field(None, description="The partition of a partitioned asset.")
    state: list[Literal["planned", "loaded", "failed", "dead", "replayed", "obsolete", "failing"]] = Field(
        [], max_length=7, description="failing: failed at least once and not loaded, whatever the state."
    )
    job: Word | None = Field(None, description="The Dagster job.")
    run_id: Word | None = Field(None, description="A Dagster run of any attempt.")
    receipt: Word | None = Field(None, description="The batch of this request, and the replays of its dead letters.")
    replay: WholeNumber | None = Field(None, ge=1, le=LAST_ID, description="The batches of this replay.")
    since: Moment | None = Field(None, description="Planned then or later: RFC 3339 with offset, or epoch ms.")
    until: Moment | None = Field(None, description="Planned before.")
    text: Word | None = Field(None, description="Somewhere in the error's class or message, whatever the case.")

    def filter(self, key: Key) -> AssetFilter:
        """As the warehouse has it, within the key's streams."""
        return AssetFilter(
            kinds=tuple(self.kind),
            streams=own_streams(key, self.stream),
            asset_key=self.asset_key,
            partition=self.partition,
            states=tuple(self.state),
            job=self.job,
            run_id=self.run_id,
            receipt=parse_receipt(self.receipt).receipt if self.receipt is not None else None,
            replay_id=self.replay,
            since=self.since,
            until=self.until,
            text=self.text,
        )


class AssetReplayRequest(BaseModel):
    """Why a row is replayed, for the audit."""

    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(None, max_length=1000, description="Kept with the replay.")


class AssetReplayDocument(BaseModel):
    """What replaying a row did."""

    asset_id: int
    message: str
    replay: ReplayDocument = Field(
        description="The request in the audit; action `retry` where no dead letter is in it."
    )


@router.get("/assets", summary="Rows of the ledger", response_model=AssetList)
def read_assets(
    edge: EdgeOf,
    asked: Annotated[AssetQuestion, Query()],
    key: Annotated[Key, Depends(scoped("read", narrow=True))],
) -> Response:
    """Every batch, replay, ETL partition and failed run, the newest first."""
    which, place = asked.filter(key), asked.place()
    edge.refuse_strangers(asked.stream)
    with edge.heavy.place():
        found = list_assets(edge.engine, which, limit=asked.limit, below_id=place)
        body = page(found.rows, asked.following(found.next), edge.dagster_link)
    return Response(body, media_type="application/json")


@router.get("/assets/{id}", summary="One row in full")
def read_asset(edge: EdgeOf, id: RowId, key: Annotated[Key, Depends(scoped("read", narrow=True))]) -> AssetDocument:
    """With its failures, runs and timings."""
    row = get_asset(edge.engine, id)
    if row is None or not key.sees(row.stream):
        raise unknown_row("row of assets", id)
    return document(row, edge.dagster_link)


@router.post("/assets/{id}/replay", summary="Try a failed row again", responses=BODY_PROBLEMS | NOTHING_TO_REPLAY)
def replay_asset(
    edge: EdgeOf,
    id: RowId,
    key: Annotated[Key, Depends(scoped("operate", narrow=True))],
    note: Note,
    asked: Annotated[AssetReplayRequest | None, Body()] = None,
) -> AssetReplayDocument:
    """A dead batch by a replay of its dead letters; a failing one at once instead of after its pause.

    A partition, or a job that failed, by a run that is requested within seconds.
    """
    row = get_asset(edge.engine, id)
    if row is None or not key.sees(row.stream):
        raise unknown_row("row of assets", id)
    with refused_as("nothing-to-replay"):
        done = retry_asset(
            edge.writer, id, requested_by=actor_of(key), streams=edge.specs.keys(), note=asked.note if asked else None
        )
    note("replay", key, asset=id, replay=done.replay.id, matched=done.replay.matched)
    return AssetReplayDocument(asset_id=id, message=done.message, replay=replay_document(done.replay))
