"""The batch ledger on the `assets` table: what is planned, what is settled, and how it went.

PostgreSQL, not Dagster's cursor, is the truth: a planned batch without a live run is requested again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.batches import Batch
from pipeline_platform.core.entries import ZERO, EntryId
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import UNSETTLED, assets
from pipeline_platform.warehouse.text import storable
from pipeline_platform.warehouse.visible import VISIBLE_AT

_WITH_VISIBLE = (assets, sa.literal_column(VISIBLE_AT, sa.DateTime(timezone=True)).label("visible_at"))


@dataclass(frozen=True)
class LedgerRow:
    """One ingest batch as the ledger has it. Times are aware UTC datetimes."""

    id: int
    stream: str
    state: str
    attempt: int
    run_id: str | None
    first_id: EntryId
    last_id: EntryId
    entries: int
    events_planned: int
    bytes_planned: int
    events_read: int
    events_loaded: int
    events_negative: int
    events_rejected: int
    error_message: str | None
    planned_at: datetime
    requested_at: datetime | None
    started_at: datetime | None
    not_before: datetime | None
    loaded_at: datetime | None
    visible_at: datetime | None = None  # from `get` and `holding`, where the server keeps it

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do for this batch."""
        return self.state not in UNSETTLED


@dataclass(frozen=True)
class StreamTotals:
    """A stream's sums over the ledger, since its beginning."""

    batches: int
    events_read: int
    events_loaded: int
    events_negative: int
    events_rejected: int
    last_loaded_at: datetime | None


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
                statement = (
                    sa.insert(assets)
                    .values(
                        asset_key=asset_key,
                        job_name=job_name,
                        stream=stream,
                        state="planned",
                        first_ms=batch.first_id.ms,
                        first_seq=batch.first_id.seq,
                        last_ms=batch.last_id.ms,
                        last_seq=batch.last_id.seq,
                        entries=batch.entries,
                        events_planned=batch.events,
                        bytes_planned=batch.bytes,
                    )
                    .returning(assets)
                )
                rows.append(_row(connection.execute(statement).one()))
        return rows

    def events_planned(self, stream: str, first: EntryId, below: EntryId) -> int:
        """The events of the batches that begin at `first` or behind it and below `below`."""
        begin = sa.tuple_(assets.c.first_ms, assets.c.first_seq)
        query = sa.select(sa.func.coalesce(sa.func.sum(assets.c.events_planned), 0)).where(
            assets.c.stream == stream, begin >= sa.tuple_(first.ms, first.seq), begin < sa.tuple_(below.ms, below.seq)
        )
        with warehouse_errors(), self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def unsettled(self, stream: str) -> list[LedgerRow]:
        """The batches that are not settled, oldest first."""
        query = sa.select(assets).where(assets.c.stream == stream, assets.c.state.in_(UNSETTLED)).order_by(assets.c.id)
        with warehouse_errors(), self._engine.connect() as connection:
            return [_row(row) for row in connection.execute(query)]

    def get(self, batch_id: int) -> LedgerRow | None:
        """The batch with this number."""
        with warehouse_errors(), self._engine.connect() as connection:
            row = connection.execute(sa.select(*_WITH_VISIBLE).where(assets.c.id == batch_id)).one_or_none()
        return _row(row) if row is not None else None

    def holding(self, stream: str, entry: EntryId) -> LedgerRow | None:
        """The batch whose range holds the entry."""
        query = (
            sa.select(*_WITH_VISIBLE)
            .where(
                assets.c.stream == stream,
                sa.tuple_(assets.c.first_ms, assets.c.first_seq) <= sa.tuple_(entry.ms, entry.seq),
            )
            .order_by(assets.c.first_ms.desc(), assets.c.first_seq.desc())
            .limit(1)
        )
        with warehouse_errors(), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        found = _row(row) if row is not None else None
        return found if found is not None and found.last_id >= entry else None

    def watermark(self, stream: str) -> EntryId:
        """Every entry below this id is settled: the first unsettled one, or the one after the last planned."""
        query = (
            sa.select(assets.c.first_ms, assets.c.first_seq)
            .where(assets.c.stream == stream, assets.c.state.in_(UNSETTLED))
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
            .values(attempt=attempt, state="planned", requested_at=sa.func.now(), run_id=None, started_at=None)
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
            .values(run_id=run_id, started_at=sa.func.now(), attempt=attempt, state="planned")
        )
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(statement)
        return self.get(batch_id)

    def fail(
        self, batch_id: int, attempt: int, *, run_id: str | None, error_class: str, message: str, not_before: datetime
    ) -> bool:
        """Records a failed attempt, unless a later one has begun or the batch is settled."""
        statement = (
            sa.update(assets)
            .where(assets.c.id == batch_id, assets.c.attempt == attempt, assets.c.state.in_(UNSETTLED))
            .values(
                state="failed",
                run_id=run_id,
                error_class=error_class[:200],
                error_message=storable(message)[:2000],
                failed_at=sa.func.now(),
                not_before=not_before,
            )
        )
        with warehouse_errors(), self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def totals(self, stream: str) -> StreamTotals:
        """Sums over all batches of the stream."""
        columns = ("events_read", "events_loaded", "events_negative", "events_rejected")
        query = sa.select(
            sa.func.count().filter(assets.c.state == "loaded"),
            *(sa.func.coalesce(sa.func.sum(assets.c[name]), 0) for name in columns),
            sa.func.max(assets.c.loaded_at),
        ).where(assets.c.stream == stream)
        with warehouse_errors(), self._engine.connect() as connection:
            row = connection.execute(query).one()
        batches, read, loaded, negative, rejected, last = row
        return StreamTotals(batches, int(read), int(loaded), int(negative), int(rejected), last)


def _last_planned(connection: sa.Connection, stream: str) -> EntryId:
    query = (
        sa.select(assets.c.last_ms, assets.c.last_seq)
        .where(assets.c.stream == stream)
        .order_by(assets.c.first_ms.desc(), assets.c.first_seq.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return EntryId(int(row[0]), int(row[1])) if row is not None else ZERO


def _row(row: Any) -> LedgerRow:
    return LedgerRow(
        id=row.id,
        stream=row.stream,
        state=row.state,
        attempt=row.attempt,
        run_id=row.run_id,
        first_id=EntryId(row.first_ms, row.first_seq),
        last_id=EntryId(row.last_ms, row.last_seq),
        entries=row.entries,
        events_planned=row.events_planned,
        bytes_planned=row.bytes_planned,
        events_read=row.events_read,
        events_loaded=row.events_loaded,
        events_negative=row.events_negative,
        events_rejected=row.events_rejected,
        error_message=row.error_message,
        planned_at=row.planned_at,
        requested_at=row.requested_at,
        started_at=row.started_at,
        not_before=row.not_before,
        loaded_at=row.loaded_at,
        visible_at=getattr(row, "visible_at", None),
    )
