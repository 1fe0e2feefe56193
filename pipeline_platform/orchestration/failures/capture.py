"""Reads the runs that failed or were canceled since the last look, all at once, and writes what `assets` lacks.

Dagster's own run-failure sensor takes five runs a tick. Here a page of runs costs one query of Dagster's storage and
one of the ledger; only a run that is new to the ledger costs more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sa

from pipeline_platform.core.batches import retry_pause
from pipeline_platform.core.failures import Failure, FailureKind, NextStep
from pipeline_platform.orchestration.failures.causes import Cause, cause_of
from pipeline_platform.orchestration.partition_ranges import range_text
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform.warehouse.failed_runs import (
    FailedRun,
    KnownBatch,
    batches_of_runs,
    note_run,
    record_failed_runs,
)
from pipeline_platform.warehouse.ledger import Ledger

PAGE = 500
PAGES = 4  # a tick
OVERLAP = timedelta(seconds=60)  # processes' clocks differ, and a status is visible only when it is committed
FIRST_LOOK = timedelta(days=1)
_ENDED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True)
class Captured:
    """What a look found: failures that were new to batches, new rows for other runs, and where the next look begins."""

    batches: int
    runs: int
    seen: int
    until: datetime


@dataclass(frozen=True)
class _Tags:
    batch_id: int
    attempt: int
    mode: NextStep


def capture(instance: dg.DagsterInstance, engine: sa.Engine, after: datetime | None, now: datetime) -> Captured:
    """One look, at what has ended since `after`. Whatever is seen twice is written once."""
    after = after or now - FIRST_LOOK
    batches = runs = seen = 0
    for _ in range(PAGES):
        page = _page(instance, after)
        more_batches, more_runs = _record(instance, engine, page, now)
        batches, runs, seen = batches + more_batches, runs + more_runs, seen + len(page)
        if len(page) < PAGE:
            # Never backwards, where runs of a clock that is behind are seen.
            after = max(after, now - OVERLAP)
            break
        # Others may have ended in the same instant as the last of the page.
        after = max(record.update_timestamp for record in page) - timedelta(microseconds=1)
    return Captured(batches, runs, seen, after)


def _page(instance: dg.DagsterInstance, after: datetime) -> Sequence[dg.RunRecord]:
    """The next runs to look at, the oldest change first; more than a page only where they changed in one instant."""
    limit = PAGE
    while True:
        found = instance.get_run_records(
            dg.RunsFilter(statuses=_ENDED, updated_after=after),
            limit=limit,
            order_by="update_timestamp",
            ascending=True,
        )
        if len(found) < limit or found[0].update_timestamp != found[-1].update_timestamp:
            return found
        limit *= 2


def _record(
    instance: dg.DagsterInstance, engine: sa.Engine, page: Sequence[dg.RunRecord], now: datetime
) -> tuple[int, int]:
    """Writes what is new; how many failures of batches and how many rows of other runs."""
    tags = {record.dagster_run.run_id: _tags(record.dagster_run) for record in page}
    known = batches_of_runs(engine, {each.batch_id for each in tags.values() if each}, tags.keys())
    by_id = {row.id: row for row in known}
    by_run: dict[str | None, list[KnownBatch | None]] = {}
    for row in known:
        by_run.setdefault(row.run_id, []).append(row)
    told = {run_id for row in known for run_id in row.run_ids}
    batches, others = 0, []
    for record in page:
        run = record.dagster_run
        tag = tags[run.run_id]
        # A run without tags is of the batch that it has begun to read, or of the partitions that it was to load.
        own = by_run.get(run.run_id, []) if tag is None else [by_id.get(tag.batch_id)]
        rows = [row for row in own if row is not None]
        for row in _one_an_asset(rows):
            batches += _fail(instance, engine, row, tag, record, now)
            if run.run_id not in row.run_ids:
                note_run(engine, row.id, tag.attempt if tag else row.attempt, run.run_id)
        if not rows and run.run_id not in told:
            others.append(_failed_run(record, cause_of(instance, record)))
    return batches, record_failed_runs(engine, others)


def _one_an_asset(rows: Iterable[KnownBatch]) -> Iterator[KnownBatch]:
    """The rows, of an asset's partitions only the first that is untold: to tell it is to tell all of the run."""
    seen: set[str] = set()
    for row in rows:
        if row.etl_asset is None or (row.untold and row.etl_asset not in seen):
            seen.add(row.etl_asset or "")
            yield row


def _fail(
    instance: dg.DagsterInstance,
    engine: sa.Engine,
    row: KnownBatch,
    tag: _Tags | None,
    record: dg.RunRecord,
    now: datetime,
) -> bool:
    """Tells the batch that its latest attempt is lost, unless it knows; the planner takes it up from there.

    A partition is taken up by the next run that is for it.
    """
    if not row.untold or (tag is not None and tag.attempt != row.attempt):
        return False
    cause = cause_of(instance, record)
    canceled = cause.kind is FailureKind.CANCELED
    failure = Failure(
        cause.kind if canceled else FailureKind.LOST,
        cause.error_class,
        cause.message if canceled else f"The run ended without recording an outcome. {cause.message}",
        attempt=row.attempt,
        mode=tag.mode if tag else NextStep.PLAIN,
        run_id=record.dagster_run.run_id,
    )
    book: Ledger | EtlLedger = EtlLedger(engine) if row.etl_asset else Ledger(engine)
    return book.fail(row.id, failure, not_before=now + timedelta(seconds=retry_pause(row.attempt)))


def _tags(run: dg.DagsterRun) -> _Tags | None:
    try:
        batch_id, attempt = int(run.tags["pipeline/batch_id"]), int(run.tags["pipeline/attempt"])
        mode = NextStep(run.tags.get("pipeline/mode", NextStep.PLAIN.value))
    except (KeyError, ValueError):
        return None
    return _Tags(batch_id, attempt, mode) if 0 < batch_id < 2**63 else None


def _failed_run(record: dg.RunRecord, cause: Cause) -> FailedRun:
    run = record.dagster_run
    return FailedRun(
        run_id=run.run_id,
        job=run.job_name,
        kind=cause.kind,
        error_class=cause.error_class,
        message=cause.message,
        failed_at=_moment(record.end_time) or record.update_timestamp,
        op=cause.op,
        partition=range_text(run.tags),
        requested_at=record.create_timestamp,
        started_at=_moment(record.start_time),
    )


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
