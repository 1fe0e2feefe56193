"""The load: a whole batch in one transaction, once.

The ledger's row is locked first and decides: a batch that is already loaded is left alone, whoever asks. Then, where
the stream asks for it, events that repeat an event_id are put with the rejected ones. Facts go in by binary COPY;
aggregates are merged in key order, so that two loads wait for each other rather than deadlock; rejected events become
dead letters; and the ledger row is set to `loaded` by the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import psycopg
import sqlalchemy as sa

from pipeline_platform.core.entries import Entry, Receipt
from pipeline_platform.core.event_ids import EventIds, joined, with_repeats
from pipeline_platform.core.letters import Rebuilt
from pipeline_platform.core.lines import lines_of
from pipeline_platform.core.rejections import Int32s, Reason, Rejections
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.transforms import Aggregates, aggregate
from pipeline_platform.core.validation import Columns, late_events
from pipeline_platform.core.windows import days_touched, to_datetime
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.warehouse.alerts import alert_of_burial, recovered
from pipeline_platform.warehouse.binary_copy import ArrayDumper, BinaryArray, binary_array, fact_rows
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.event_ids import clock_us, take_ids
from pipeline_platform.warehouse.merge import merge_statement
from pipeline_platform.warehouse.partitions import ensure_partitions
from pipeline_platform.warehouse.rollup_marks import mark_hours
from pipeline_platform.warehouse.schema import UNSETTLED, assets, batch_receipts
from pipeline_platform.warehouse.series import series_ids
from pipeline_platform.warehouse.stream_tables import quoted
from pipeline_platform.warehouse.text import storable

MERGE_CELLS = 250_000  # values in one merge statement
_RANGE = (assets.c.entries, assets.c.first_ms, assets.c.first_seq, assets.c.last_ms, assets.c.last_seq)


@dataclass(frozen=True)
class ReadyBatch:
    """A batch as the load needs it: what it was made of and what became of every event."""

    batch_id: int
    run_id: str
    entries: Sequence[Entry]
    columns: Columns
    aggregates: Aggregates
    rejections: Rejections
    negative_entry: Int32s
    late: int
    buried: bool = False  # given up: all of its lines are rejected
    letters: Rebuilt | None = None  # of a replay: which dead letter each line is
    negative_ids: EventIds | None = None  # of the dropped negatives, in a stream with unique_event_id


@dataclass(frozen=True)
class Loaded:
    """The outcome: `fresh` is False when the batch had been loaded before and nothing was done."""

    fresh: bool
    read: int
    loaded: int
    negative: int
    rejected: int
    windows: int
    first_ts: datetime | None
    last_ts: datetime | None
    duplicate: int = 0  # those of `rejected` that only repeat an event_id


def load(engine: sa.Engine, spec: StreamSpec, batch: ReadyBatch, *, rehearse: bool = False) -> Loaded:
    """Loads the batch exactly once; to `rehearse` is to do all of it and to roll it back.

    Raises WarehouseUnavailableError, TransientError, PoisonError or PermanentError.
    """
    with warehouse_errors():
        with engine.connect() as connection:
            # Both are idempotent and of no harm alone; outside the transaction they hold their locks briefly.
            ensure_partitions(connection, spec.name, days_touched(batch.columns.ts_us))
            ids = series_ids(connection, spec, batch.columns.series)
        with engine.begin() as connection:
            query = sa.select(assets.c.state, assets.c.failed_at, *_RANGE).where(assets.c.id == batch.batch_id)
            row = connection.execute(query.with_for_update()).one_or_none()
            if row is None:
                raise PermanentError(f"Batch {batch.batch_id} is not in the ledger.")
            outcome = outcome_of(batch, fresh=row.state in UNSETTLED)
            if not outcome.fresh:
                return outcome
            if not rehearse and _range_of(batch) != tuple(row[2:]):
                raise TransientError(
                    f"Batch {batch.batch_id} was halved after this run had read it; what it is now is loaded by others."
                )
            raw = connection.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            with raw.cursor() as cursor:
                batch = without_repeats(cursor, spec, batch)
                outcome = outcome_of(batch, fresh=True)
                copy_facts(cursor, spec, batch, ids)
                merge_minutes(cursor, spec, batch.aggregates, ids)
                _park(cursor, spec, batch)
                behind = mark_hours(cursor, spec.name, batch.aggregates)
            connection.execute(sa.insert(batch_receipts).values(_receipts(batch)))
            settle_batch(connection, batch, outcome, behind)
            if batch.buried:
                alert_of_burial(connection, spec.name, batch.batch_id, outcome.rejected)
            if row.failed_at is not None:
                recovered(connection, spec.name, batch.batch_id)
            if rehearse:
                connection.rollback()
    return outcome


def _range_of(batch: ReadyBatch) -> tuple[int, ...]:
    """What was read, as `_RANGE`."""
    if not batch.entries:
        return (0,)
    first, last = batch.entries[0].id, batch.entries[-1].id
    return len(batch.entries), first.ms, first.seq, last.ms, last.seq


def outcome_of(batch: ReadyBatch, *, fresh: bool) -> Loaded:
    """What the load of the batch comes to."""
    loaded, negative, rejected = len(batch.columns), len(batch.negative_entry), len(batch.rejections)
    ts = batch.columns.ts_us
    return Loaded(
        fresh,
        loaded + negative + rejected,
        loaded,
        negative,
        rejected,
        len(batch.aggregates.frame),
        to_datetime(int(ts.min())) if loaded else None,
        to_datetime(int(ts.max())) if loaded else None,
        batch.rejections.counts().get(Reason.DUPLICATE_EVENT_ID, 0),
    )


def settle_batch(connection: sa.Connection, batch: ReadyBatch, outcome: Loaded, behind: int) -> None:
    """Writes the outcome to the batch's row in the ledger; `behind` are events of hours that were rolled up before."""
    connection.execute(
        sa.update(assets)
        .where(assets.c.id == batch.batch_id)
        .values(
            # The letters of a replay that is given up are open again: nothing is left of its batch.
            state="dead" if batch.buried and batch.letters is None else "loaded",
            run_id=batch.run_id,
            events_read=outcome.read,
            events_loaded=outcome.loaded,
            events_negative=outcome.negative,
            events_rejected=outcome.rejected,
            events_duplicate=outcome.duplicate,
            events_late=batch.late,
            events_behind=behind,
            first_ts=outcome.first_ts,
            last_ts=outcome.last_ts,
            loaded_at=sa.func.clock_timestamp(),
            not_before=None,
        )
    )


def without_repeats(cursor: psycopg.Cursor[tuple[object, ...]], spec: StreamSpec, batch: ReadyBatch) -> ReadyBatch:
    """The batch with the events that repeat an event_id among its rejections; takes the ids of the others.

    To be called in the load's transaction, before anything else of the batch is written. An event that is replayed
    counts as received now: what it might repeat from further back may have been purged.
    """
    kept, dropped = batch.columns.ids, batch.negative_ids
    if not spec.unique_event_id:
        return batch
    if kept is None or dropped is None:
        raise PermanentError(f"Batch {batch.batch_id} was read before event ids of {spec.name} had to be unique.")
    ids = joined(kept, dropped)
    if not len(ids):
        return batch
    if batch.letters is not None:
        ids = ids.counting_from(clock_us(cursor))
    verdict = take_ids(cursor, spec, batch.batch_id, ids)
    if verdict.keep.all():
        return batch
    first, first_negative = verdict.keep[: len(kept)], verdict.keep[len(kept) :]
    columns = batch.columns.where(first)
    late = late_events(batch.columns, spec.policies) - late_events(columns, spec.policies)
    return replace(
        batch,
        columns=columns,
        aggregates=batch.aggregates if first.all() else aggregate(columns),
        rejections=with_repeats(batch.rejections, ids.where(~verdict.keep)),
        negative_entry=batch.negative_entry[first_negative],
        negative_ids=dropped.where(first_negative),
        late=batch.late - late,
    )


def copy_facts(
    cursor: psycopg.Cursor[tuple[object, ...]], spec: StreamSpec, batch: ReadyBatch, ids: npt.NDArray[np.int32]
) -> None:
    """Writes the batch's events to the facts; `ids` are its series'."""
    if not len(batch.columns):
        return
    measures = ", ".join(quoted(name) for name in spec.measures)
    statement = (
        f'copy "{spec.name}_events" (ts, received_at, batch_id, series_id, {measures}) from stdin (format binary)'
    )
    with cursor.copy(statement.encode()) as copy:
        for chunk in fact_rows(batch.columns, batch.batch_id, ids):
            copy.write(chunk)


def merge_minutes(
    cursor: psycopg.Cursor[tuple[object, ...]], spec: StreamSpec, aggregates: Aggregates, ids: npt.NDArray[np.int32]
) -> None:
    """Merges the aggregates into the minutes, in key order."""
    frame = aggregates.frame
    if not len(frame):
        return
    # Two codes of one series cannot be: its dimensions are unique. So the keys are unique after the renaming too.
    frame = frame.assign(series_id=ids[frame["series_code"].to_numpy()]).sort_values(["series_id", "window_us"])
    statement, columns = merge_statement(spec)
    cursor.adapters.register_dumper(BinaryArray, ArrayDumper)
    rows = max(1, MERGE_CELLS // len(columns))
    for start in range(0, len(frame), rows):
        part = frame.iloc[start : start + rows]
        cursor.execute(statement.encode(), [binary_array(part[name].to_numpy()) for name in columns])


def _park(cursor: psycopg.Cursor[tuple[object, ...]], spec: StreamSpec, batch: ReadyBatch) -> None:
    """Writes the rejected events to dead_letters, a request at a time so that few lines are held at once."""
    rejections = batch.rejections
    if not len(rejections):
        return
    statement = (
        b"copy dead_letters (stream, reason, field, message, payload, batch_id, run_id, receipt, line, received_at, "
        b"stage) from stdin"
    )
    with cursor.copy(statement) as copy:
        bounds = np.flatnonzero(np.diff(rejections.entry)) + 1
        for rows in np.split(np.arange(len(rejections)), bounds):
            entry = batch.entries[int(rejections.entry[rows[0]])]
            lines = lines_of(entry.data)
            receipt, received = str(Receipt(spec.name, entry.id)), to_datetime(entry.received_us)
            for row in rows:
                problem = rejections.problems[int(rejections.kind[row])]
                line = int(rejections.line[row])
                copy.write_row(
                    (
                        spec.name,
                        problem.reason.value,
                        storable(problem.field) or None,
                        problem.message,
                        storable(lines[line].decode("utf-8", "backslashreplace")),
                        batch.batch_id,
                        batch.run_id,
                        receipt,
                        line,
                        received,
                        "load" if problem.reason is Reason.DUPLICATE_EVENT_ID else "validate",
                    )
                )


def _receipts(batch: ReadyBatch) -> dict[str, object]:
    entries = len(batch.entries)
    negative = np.bincount(batch.negative_entry, minlength=entries)
    rejected = np.bincount(batch.rejections.entry, minlength=entries)
    received = np.bincount(batch.columns.entry, minlength=entries) + negative + rejected
    return {
        "batch_id": batch.batch_id,
        "entry_ms": [entry.id.ms for entry in batch.entries],
        "entry_seq": [entry.id.seq for entry in batch.entries],
        "received": received.tolist(),
        "negative": negative.tolist(),
        "rejected": rejected.tolist(),
    }
