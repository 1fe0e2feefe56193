"""The ids that a stream's events have taken: `<stream>_event_ids`, one row an id.

Taking them is part of the load's transaction, and the primary key decides between batches that load beside each other:
one waits for the other's commit. New ids are taken before others' ids, and both in key order, so two loads cannot wait
for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
import sqlalchemy as sa

from pipeline_platform.core.event_ids import Bools, Claim, EventIds, Verdict, claim_of, judge
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.binary_copy import id_rows
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.stream_tables import event_ids_table

CHUNK = 50_000  # ids in one statement; each is a Python object for a moment
STEP = 5_000  # expired ids deleted in one transaction

Cursor = psycopg.Cursor[tuple[object, ...]]
Places = npt.NDArray[np.intp]

_COPY = "copy {table} (event_id, received_at, batch_id) from stdin (format binary)"
_HELD = """
select event_id, (extract(epoch from received_at) * 1000000)::bigint from {table}
where event_id = any(%b::text[]) and batch_id <> %b
"""
# A row that is not updated is locked all the same: it stays as it is until the load has ended.
_TAKE = """
insert into {table} as taken (event_id, received_at, batch_id)
select event_id, timestamptz 'epoch' + received_us * interval '1 microsecond', %b
from unnest(%b::text[], %b::bigint[]) as wanted (event_id, received_us)
on conflict (event_id) do update set received_at = excluded.received_at, batch_id = excluded.batch_id
where excluded.received_at >= taken.received_at + %b * interval '1 microsecond'
"""
_MOVE = """
update {table} as taken
set received_at = timestamptz 'epoch' + received_us * interval '1 microsecond', batch_id = %b
from unnest(%b::text[], %b::bigint[]) as later (event_id, received_us) where taken.event_id = later.event_id
"""
# Whatever may still come by the queue was received after `horizon`, the clock of the stream itself: an outage of a
# week expires nothing that the backlog may repeat. Where a load holds a row nobody waits for it.
_HORIZON = """
select least(
    now(),
    (select to_timestamp(last_ms / 1000.0) from assets where stream = :stream and kind = 'ingest'
     order by first_ms desc, first_seq desc limit 1),
    (select to_timestamp(min(first_ms) / 1000.0) from assets
     where stream = :stream and kind = 'ingest' and state in ('planned', 'failed'))
) - cast(:period as interval)
from assets where stream = :stream and kind = 'ingest' limit 1
"""
# Batches that are so old may be past their own retention: what counts is where the younger ones begin.
_LAST_BEFORE = """
select coalesce(min(id) - 1, (select max(id) from assets)) from assets
where stream = :stream and kind = 'ingest' and last_ms >= extract(epoch from cast(:horizon as timestamptz)) * 1000
"""
_PURGE = """
delete from {table} where ctid = any(array(
    select ctid from {table} where batch_id <= :batch_id and received_at < :horizon
    order by batch_id limit :step for update skip locked
))
"""


def take_ids(cursor: Cursor, spec: StreamSpec, batch_id: int, ids: EventIds) -> Verdict:
    """Takes the ids for the batch within the caller's transaction; says which events have theirs to themselves."""
    claim = claim_of(ids)
    taking = _Taking(cursor, spec, batch_id, claim)
    every = np.arange(len(claim))
    held = taking.look_up(every)
    new = np.setdiff1d(every, held, assume_unique=True)
    # COPY costs half of what asking for each id does, and seldom does another load want one of them right now.
    if not taking.copy(new):
        taking.take(new)
    # Only of these an event of the batch may come late enough to have them.
    taking.take(held[claim.last_us[held] >= taking.free_from_us[held]])
    verdict = judge(ids, claim, taking.free_from_us, taking.period_us)
    if len(verdict.moved):
        moved = claim.values.take(pa.array(verdict.moved)).to_pylist()
        cursor.execute(_for(_MOVE, spec), [batch_id, moved, verdict.moved_us.tolist()])
    return verdict


class _Taking:
    """A claim on its way through the table; `free_from_us` is what `judge` wants to know of each id by its place."""

    def __init__(self, cursor: Cursor, spec: StreamSpec, batch_id: int, claim: Claim) -> None:
        self._cursor, self._spec, self._batch_id, self._claim = cursor, spec, batch_id, claim
        self.period_us = spec.policies.unique_for // timedelta(microseconds=1)
        self.free_from_us = claim.first_us.copy()

    def look_up(self, places: Places) -> Places:
        """Notes which of these ids other batches have, and until when; returns their places."""
        found: list[int] = []
        # Thousands of ids are few for the planner only until the table is large.
        self._cursor.execute(b"set local enable_seqscan = off")
        for part in _chunks(places):
            values = self._values(part)
            self._cursor.execute(_for(_HELD, self._spec), [values, self._batch_id])
            if held := dict(_pairs(self._cursor)):
                mine = [at for at, value in enumerate(values) if value in held]
                self.free_from_us[part[mine]] = [held[values[at]] + self.period_us for at in mine]
                found += part[mine].tolist()
        self._cursor.execute(b"set local enable_seqscan = default")
        return np.array(found, np.intp)

    def copy(self, places: Places) -> bool:
        """Takes ids that nobody had a moment ago; False, with nothing done, when another load was quicker."""
        if not len(places):
            return True
        self._cursor.execute(b"savepoint before_ids")
        try:
            with self._cursor.copy(_for(_COPY, self._spec)) as copy:
                for data in id_rows(
                    self._claim.values.take(pa.array(places)), self._claim.first_us[places], self._batch_id
                ):
                    copy.write(data)
        except psycopg.errors.UniqueViolation:
            self._cursor.execute(b"rollback to savepoint before_ids")
            return False
        self._cursor.execute(b"release savepoint before_ids")
        return True

    def take(self, places: Places) -> None:
        """Takes those of the ids that are free; the others stay locked for their holders."""
        for part in _chunks(places):
            first_us = self._claim.first_us[part]
            self.free_from_us[part] = first_us
            parameters = [self._batch_id, self._values(part), first_us.tolist(), self.period_us]
            self._cursor.execute(_for(_TAKE, self._spec), parameters)
            if self._cursor.rowcount < len(part):
                self.look_up(part)

    def _values(self, places: Places) -> list[str]:
        values: list[str] = self._claim.values.take(pa.array(places)).to_pylist()
        return values


def _chunks(places: Places) -> Iterator[Places]:
    for start in range(0, len(places), CHUNK):
        yield places[start : start + CHUNK]


def _pairs(cursor: Cursor) -> Iterator[tuple[str, int]]:
    for event_id, held_us in cursor:
        yield str(event_id), int(str(held_us))


def free_now(engine: sa.Engine, spec: StreamSpec, ids: EventIds) -> Bools:
    """Which of the events would have their ids to themselves if they were received now; for a dry run."""
    claim = claim_of(ids.counting_from(0))
    query = sa.text(
        f'select event_id from "{event_ids_table(spec).name}" where event_id = any(cast(:values as text[])) '
        "and received_at > now() - cast(:period as interval)"
    )
    values = claim.values.to_pylist()
    with warehouse_errors(), engine.connect() as connection:
        taken = set(connection.scalars(query, {"values": values, "period": spec.policies.unique_for}))
    until_us = np.array([int(value in taken) for value in values], np.int64)
    return judge(ids.counting_from(0), claim, until_us, 1).keep


def clock_us(cursor: Cursor) -> int:
    """PostgreSQL's clock, epoch microseconds."""
    cursor.execute(b"select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
    row = cursor.fetchone()
    assert row is not None
    return int(str(row[0]))


def purge_expired_ids(engine: sa.Engine, spec: StreamSpec, *, step: int = STEP) -> int:
    """Deletes the ids that no event can repeat any more, a step a transaction; returns how many.

    Only for room: an id that is past its time counts as free whether its row is there or not.
    """
    table = event_ids_table(spec).name
    with warehouse_errors(), engine.connect() as connection:
        if not connection.scalar(sa.text("select to_regclass(quote_ident(:table))"), {"table": table}):
            return 0
        horizon = connection.scalar(sa.text(_HORIZON), {"stream": spec.name, "period": spec.policies.unique_for})
        parameters = {"stream": spec.name, "horizon": horizon}
        last = connection.scalar(sa.text(_LAST_BEFORE), parameters) if horizon else 0
        connection.commit()
        purged = 0
        if not last:
            return purged
        statement = sa.text(_PURGE.format(table=f'"{table}"'))
        while True:
            gone = connection.execute(statement, {"batch_id": last, "horizon": horizon, "step": step}).rowcount
            connection.commit()
            purged += gone
            if gone < step:
                return purged


def _for(statement: str, spec: StreamSpec) -> bytes:
    return statement.format(table=f'"{event_ids_table(spec).name}"').encode()
