"""Rows of `assets` as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from pipeline_platform.core.entries import EntryId, Receipt
from pipeline_platform.gateway.receipts import RunDocument
from pipeline_platform.warehouse.asset_search import AssetRow
from pipeline_platform.warehouse.failed_runs import OF_JOB

Kind = Literal["ingest", "replay", "etl"]
State = Literal["planned", "loaded", "failed", "dead", "replayed", "obsolete"]


class AssetRange(BaseModel):
    """The queue entries of an ingest batch."""

    first_receipt: str
    last_receipt: str
    entries: int


class AssetCounts(BaseModel):
    """Events; once loaded, read = loaded + negative + rejected."""

    planned: int
    read: int
    loaded: int
    negative: int
    rejected: int
    duplicate: int = Field(description="Those of the rejected that only repeat an event_id.")
    late: int
    bytes: int = Field(description="Payload bytes that were planned.")


class AssetError(BaseModel):
    """The latest failure."""

    kind: str | None = Field(description="transient, permanent, poison, lost or canceled; null for failures of old.")
    error_class: str | None
    message: str | None = Field(description="What it said; of an obsolete row, why it is.")
    failed_at: datetime | None
    next_attempt_at: datetime | None = Field(description="The next attempt is not requested before; null: none is due.")


class AssetTimes(BaseModel):
    """When each stage was reached, UTC."""

    planned_at: datetime
    requested_at: datetime | None
    started_at: datetime | None
    loaded_at: datetime | None
    visible_at: datetime | None = Field(description="When the load's commit was done; only in the row's own document.")


class AssetSummary(BaseModel):
    """One unit of work: an ingest batch, a batch of a replay, an ETL partition, or a run that failed."""

    id: int
    kind: Kind
    asset_key: str = Field(description="The Dagster asset; `job/<name>` for a failed run of a job without a batch.")
    stream: str | None
    partition: str | None
    state: State
    failing: bool = Field(description="It has failed and is not loaded.")
    attempt: int
    op_retries: int = Field(description="How often ops of the latest attempt were tried again.")
    job: str | None
    run: RunDocument | None = Field(description="The Dagster run of the latest attempt.")
    replay_id: int | None
    range: AssetRange | None
    counts: AssetCounts
    error: AssetError | None
    times: AssetTimes
    links: dict[str, str]


class AssetFailure(BaseModel):
    """One failure on record."""

    at: datetime | None
    attempt: int
    mode: str
    op: str = Field(description="Empty: the run itself.")
    retried: int = Field(description="Tries of the op before this one.")
    final: bool = Field(description="False: the op was tried again in the same run.")
    kind: str
    error_class: str
    message: str
    run_id: str | None


class AssetDocument(AssetSummary):
    """One row in full."""

    runs: list[RunDocument] = Field(description="The runs of all attempts, the latest 50.")
    failures: list[AssetFailure] = Field(description="The latest 20, the oldest first.")
    first_ts: datetime | None = Field(description="The earliest event loaded.")
    last_ts: datetime | None = Field(description="The latest event loaded.")
    seconds: dict[str, float] = Field(description="Between the stages that were reached: waiting, starting, running.")


class AssetList(BaseModel):
    """A page of rows, the newest first."""

    data: list[AssetSummary]
    next_cursor: str | None


def page(rows: Sequence[AssetRow], next_cursor: str | None, dagster: str) -> bytes:
    """An AssetList as JSON; `dagster` is the base of links to the Dagster UI.

    Without the models, which took most of the time of a long page.
    """
    document = {"data": [_shared(row, dagster) for row in rows], "next_cursor": next_cursor}
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def document(row: AssetRow, dagster: str) -> AssetDocument:
    """The row in full."""
    return AssetDocument(
        **_shared(row, dagster),
        runs=[RunDocument(**_run(run_id, dagster)) for run_id in row.run_ids],
        failures=[AssetFailure.model_validate(failure) for failure in row.failures],
        first_ts=row.first_ts,
        last_ts=row.last_ts,
        seconds=_seconds(row),
    )


def _shared(row: AssetRow, dagster: str) -> dict[str, Any]:
    error = None
    if row.error_class is not None or row.error_message is not None:
        error = {
            "kind": row.error_kind,
            "error_class": row.error_class,
            "message": row.error_message,
            "failed_at": row.failed_at,
            "next_attempt_at": row.not_before if row.failing else None,
        }
    return {
        "id": row.id,
        "kind": row.kind,
        "asset_key": row.asset_key,
        "stream": row.stream,
        "partition": row.partition_key,
        "state": row.state,
        "failing": row.failing,
        "attempt": row.attempt,
        "op_retries": row.op_retries,
        "job": row.job_name,
        "run": _run(row.run_id, dagster) if row.run_id else None,
        "replay_id": row.replay_id,
        "range": _range(row),
        "counts": {
            "planned": row.events_planned,
            "read": row.events_read,
            "loaded": row.events_loaded,
            "negative": row.events_negative,
            "rejected": row.events_rejected,
            "duplicate": row.events_duplicate,
            "late": row.events_late,
            "bytes": row.bytes_planned,
        },
        "error": error,
        "times": {
            "planned_at": row.planned_at,
            "requested_at": row.requested_at,
            "started_at": row.started_at,
            "loaded_at": row.loaded_at,
            "visible_at": row.visible_at,
        },
        "links": _links(row, dagster),
    }


def _range(row: AssetRow) -> dict[str, Any] | None:
    bounds = (row.first_ms, row.first_seq, row.last_ms, row.last_seq)
    if row.kind != "ingest" or row.stream is None or None in bounds:
        return None
    first_ms, first_seq, last_ms, last_seq = (int(bound or 0) for bound in bounds)
    return {
        "first_receipt": str(Receipt(row.stream, EntryId(first_ms, first_seq))),
        "last_receipt": str(Receipt(row.stream, EntryId(last_ms, last_seq))),
        "entries": row.entries,
    }


def _run(run_id: str, dagster: str) -> dict[str, str]:
    return {"id": run_id, "url": f"{dagster}/runs/{run_id}"}


def _links(row: AssetRow, dagster: str) -> dict[str, str]:
    here = f"/v1/assets/{row.id}"
    links = {"self": here}
    if row.run_id:
        links["run"] = f"{dagster}/runs/{row.run_id}"
    if row.kind != "replay" and not row.asset_key.startswith(OF_JOB):  # those are keys of no Dagster asset
        links["asset"] = f"{dagster}/assets/{row.asset_key}"
    if row.stream:
        links["stream"] = f"/v1/streams/{row.stream}"
    if row.events_rejected and row.kind == "ingest":
        links["dead_letters"] = f"/v1/dead-letters?batch={row.id}"
    if row.replay_id is not None:
        links["replay"] = f"/v1/replays/{row.replay_id}"
    return links


def _seconds(row: AssetRow) -> dict[str, float]:
    """How long the latest attempt spent in each stage."""
    stages = (
        ("waiting", row.planned_at, row.requested_at),
        ("starting", row.requested_at, row.started_at),
        ("running", row.started_at, row.loaded_at or (row.failed_at if row.failing else None)),
    )
    spans = {name: (end - begin).total_seconds() for name, begin, end in stages if begin and end}
    return {name: span for name, span in spans.items() if span >= 0}  # a time of an attempt before is no end of this
