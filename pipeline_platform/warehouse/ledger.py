"""The batch ledger on the `assets` table: what is planned, what is settled, and how it went.

PostgreSQL, not Dagster's cursor, is the truth: a planned batch without a live run is requested again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.core.batches import Batch
from pipeline_platform.core.entries import ZERO, EntryId
from pipeline_platform.core.failures import ENDED, Failure, FailureKind
from pipeline_platform.warehouse.alerts import alert_of_failure, alert_of_queue
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger_rows import (
    BETWEEN_ATTEMPTS,
    PLAIN_FAILURES,
    LedgerRow,
    last_failure,
    ledger_row,
    runs_with,
)
from pipeline_platform.warehouse.ledger_totals import StreamTotals, stream_totals
from pipeline_platform.warehouse.schema import UNSETTLED, assets
from pipeline_platform.warehouse.visible import VISIBLE_AT

_WITH_VISIBLE = (assets, sa.literal_column(VISIBLE_AT, sa.DateTime(timezone=True)).label("visible_at"))


class Ledger:
    """Reads and writes of the ledger. Each method is a transaction of its own unless it takes a connection."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def last_planned(self, stream: str) -> EntryId:
        """The id of the last entry that is in a batch; ZERO before the first."""
        with warehouse_errors(), self._engine.connect() as connection:
            return _last_planned(connection, stream)

    def plan(self, stream: str, batches: Iterable[Batch], *, asset_key: str, job_name: str) -> list[LedgerRow]:
        """Writes planned ranges, all of them or none.

        `batches` continue what was planned when the caller looked. When another planner has gone on from there
        meanwhile, its cuts lie elsewhere: to keep some of ours could leave a gap that nobody would ever read.
        """
        rows: list[LedgerRow] = []
        batches = list(batches)
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"plan {stream}"})
            if batches and batches[0].first_id <= _last_planned(connection, stream):
                return []
            for batch in batches:
                statement = _planned(batch, asset_key, job_name).returning(assets)
                rows.append(ledger_row(connection.execute(statement).one()))
        return rows

    def events_planned(self, stream: str, first: EntryId, below: EntryId) -> int:
        """The events of the batches that begin at `first` or behind it and below `below`."""
        begin = sa.tuple_(assets.c.first_ms, assets.c.first_seq)
        query = sa.select(sa.func.coalesce(sa.func.sum(assets.c.events_planned), 0)).where(
            _ingest(stream), begin >= sa.tuple_(first.ms, first.seq), begin < sa.tuple_(below.ms, below.seq)
        )
        with warehouse_errors(), self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def unsettled(self, stream: str | None, kind: str = "ingest") -> list[LedgerRow]:
        """The units of work of that kind that are not settled, of one stream or (None) of all, oldest first."""
        query = sa.select(assets).where(assets.c.kind == kind, assets.c.state.in_(UNSETTLED)).order_by(assets.c.id)
        if stream is not None:
            query = query.where(assets.c.stream == stream)
        with warehouse_errors(), self._engine.connect() as connection:
            return [ledger_row(row) for row in connection.execute(query)]

    def get(self, batch_id: int) -> LedgerRow | None:
        """The batch with this number."""
        with warehouse_errors(), self._engine.connect() as connection:
            row = connection.execute(sa.select(*_WITH_VISIBLE).where(assets.c.id == batch_id)).one_or_none()
        return ledger_row(row) if row is not None else None

    def holding(self, stream: str, entry: EntryId) -> LedgerRow | None:
        """The batch whose range holds the entry."""
        query = (
            sa.select(*_WITH_VISIBLE)
            .where(
                _ingest(stream),
                sa.tuple_(assets.c.first_ms, assets.c.first_seq) <= sa.tuple_(entry.ms, entry.seq),
            )
            .order_by(assets.c.first_ms.desc(), assets.c.first_seq.desc())
            .limit(1)
        )
        with warehouse_errors(), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        found = ledger_row(row) if row is not None else None
        return found if found is not None and found.last_id >= entry else None

    def watermark(self, stream: str) -> EntryId:
        """Every entry below this id is settled: the first unsettled one, or the one after the last planned."""
        query = (
            sa.select(assets.c.first_ms, assets.c.first_seq)
            .where(_ingest(stream), assets.c.state.in_(UNSETTLED))
            .order_by(assets.c.first_ms, assets.c.first_seq)
            .limit(1)
        )
        with warehouse_errors(), self._engine.connect() as connection:
            # One snapshot for both questions: a batch planned in between must not be overlooked.
            connection.execute(sa.text("set transaction isolation level repeatable read, read only"))
            first = connection.execute(query).one_or_none()
            last = _last_planned(connection, stream)
        if first is not None:
            return EntryId(int(first[0]), int(first[1]))
        return last.next() if last != ZERO else ZERO

    def request(self, batch_id: int, attempt: int) -> bool:
        """Notes that attempt `attempt` is being requested; False when another planner was quicker."""
        statement = (
            sa.update(assets)
            .where(assets.c.id == batch_id, assets.c.attempt == attempt - 1, assets.c.state.in_(UNSETTLED))
            .values(
                attempt=attempt,
                state="planned",
                requested_at=sa.func.now(),
                run_id=None,
                started_at=None,
                not_before=None,
                op_retries=0,
            )
        )
        with warehouse_errors(), self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def start(self, batch_id: int, attempt: int, run_id: str) -> LedgerRow | None:
        """Notes that a run has begun on the batch; returns the row as it is now.

        Whoever asks has to look: the row may be settled, or belong to a later attempt, and neither is touched.
        """
        statement = (
            sa.update(assets)
            .where(assets.c.id == batch_id, assets.c.attempt <= attempt, assets.c.state.in_(UNSETTLED))
            .values(
                run_id=run_id,
                run_ids=runs_with(run_id),
                started_at=sa.func.now(),
                attempt=attempt,
                state="planned",
            )
        )
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(statement)
        return self.get(batch_id)

    def retrying(self, batch_id: int, failure: Failure) -> None:
        """Records a try of an op after which the op is tried again in the same run."""
        statement = (
            sa.update(assets)
            .where(assets.c.id == batch_id, assets.c.attempt == failure.attempt, assets.c.state.in_(UNSETTLED))
            .values(op_retries=assets.c.op_retries + 1, **last_failure(failure))
        )
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(statement)

    def fail(self, batch_id: int, failure: Failure, *, not_before: datetime) -> bool:
        """Records a failed attempt, unless a later one has begun or the batch is settled.

        After a transient failure the batch is `planned` again, after any other `failed`: the planner takes up both
        when their time has come. That a run was lost or canceled is only news while nothing else is known of its end.
        """
        statement = (
            sa.update(assets)
            .where(assets.c.id == batch_id, assets.c.attempt == failure.attempt, assets.c.state.in_(UNSETTLED))
            .values(
                state="planned" if failure.kind is FailureKind.TRANSIENT else "failed",
                not_before=not_before,
                **last_failure(failure),
            )
            .returning(assets.c.stream)
        )
        if failure.kind in ENDED:
            statement = statement.where(assets.c.not_before.is_(None))
        if failure.run_id is not None:
            statement = statement.values(run_id=failure.run_id, run_ids=runs_with(failure.run_id))
        with warehouse_errors(), self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None:
                alert_of_failure(connection, batch_id, row.stream, failure)
        return row is not None

    def split(self, row: LedgerRow, first: Batch, second: Batch) -> bool:
        """Makes two batches of one: the row keeps the first half, a new row gets the second. False when it changed."""
        parent = (
            sa.update(assets)
            .where(assets.c.id == row.id, assets.c.attempt == row.attempt, BETWEEN_ATTEMPTS)
            .values(
                last_ms=first.last_id.ms,
                last_seq=first.last_id.seq,
                entries=first.entries,
                events_planned=first.events,
                bytes_planned=first.bytes,
                failures=PLAIN_FAILURES,
            )
            .returning(assets.c.asset_key, assets.c.job_name, assets.c.failures)
        )
        with warehouse_errors(), self._engine.begin() as connection:
            kept = connection.execute(parent).one_or_none()
            if kept is None:
                return False
            connection.execute(_planned(second, kept.asset_key, kept.job_name).values(failures=kept.failures))
        return True

    def alarm(self, stream: str, message: str) -> None:
        """Tells somebody that the stream's queue and the ledger do not agree; "" when they do."""
        with warehouse_errors(), self._engine.begin() as connection:
            alert_of_queue(connection, stream, message)

    def totals(self, stream: str) -> StreamTotals:
        """The stream's sums since its beginning."""
        return stream_totals(self._engine, stream)


def _ingest(stream: str) -> sa.ColumnElement[bool]:
    """The batches of the stream that are ranges of its queue."""
    return sa.and_(assets.c.stream == stream, assets.c.kind == "ingest")


def _planned(batch: Batch, asset_key: str, job_name: str) -> sa.Insert:
    return sa.insert(assets).values(
        asset_key=asset_key,
        job_name=job_name,
        stream=batch.stream,
        state="planned",
        first_ms=batch.first_id.ms,
        first_seq=batch.first_id.seq,
        last_ms=batch.last_id.ms,
        last_seq=batch.last_id.seq,
        entries=batch.entries,
        events_planned=batch.events,
        bytes_planned=batch.bytes,
    )


def _last_planned(connection: sa.Connection, stream: str) -> EntryId:
    query = (
        sa.select(assets.c.last_ms, assets.c.last_seq)
        .where(_ingest(stream))
        .order_by(assets.c.first_ms.desc(), assets.c.first_seq.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return EntryId(int(row[0]), int(row[1])) if row is not None else ZERO
