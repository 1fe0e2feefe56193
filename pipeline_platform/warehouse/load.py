"""The load: a whole batch in one transaction, once.

The ledger's row is locked first and decides: a batch that is already loaded is left alone, whoever asks. Facts go in
by binary COPY; aggregates are merged in key order, so that two loads wait for each other rather than deadlock;
rejected events become dead letters; and the ledger row is set to `loaded` by the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import psycopg
import sqlalchemy as sa

from pipeline_platform.core.entries import Entry, Receipt
from pipeline_platform.core.lines import lines_of
from pipeline_platform.core.rejections import Int32s, Rejections
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.transforms import Aggregates
from pipeline_platform.core.validation import Columns
from pipeline_platform.core.windows import days_touched, to_datetime
from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse.binary_copy import ArrayDumper, BinaryArray, binary_array, fact_rows
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.merge import merge_statement
from pipeline_platform.warehouse.partitions import ensure_partitions
from pipeline_platform.warehouse.schema import UNSETTLED, assets, batch_receipts
from pipeline_platform.warehouse.series import series_ids
from pipeline_platform.warehouse.stream_tables import quoted
from pipeline_platform.warehouse.text import storable

MERGE_CELLS = 250_000  # values in one merge statement


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


def load(engine: sa.Engine, spec: StreamSpec, batch: ReadyBatch) -> Loaded:
    """Loads the batch exactly once. Raises WarehouseUnavailableError, TransientError or PermanentError."""
    with warehouse_errors():
        with engine.connect() as connection:
            # Both are idempotent and of no harm alone; outside the transaction they hold their locks briefly.
            ensure_partitions(connection, spec.name, days_touched(batch.columns.ts_us))
            ids = series_ids(connection, spec, batch.columns.series)
        with engine.begin() as connection:
            state = connection.scalar(sa.select(assets.c.state).where(assets.c.id == batch.batch_id).with_for_update())
            if state is None:
                raise PermanentError(f"Batch {batch.batch_id} is not in the ledger.")
            outcome = _outcome(batch, fresh=state in UNSETTLED)
            if not outcome.fresh:
                return outcome
            raw = connection.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            with raw.cursor() as cursor:
                _copy_facts(cursor, spec, batch, ids)
                _merge_minutes(cursor, spec, batch.aggregates, ids)
                _park(cursor, spec, batch)
            connection.execute(sa.insert(batch_receipts).values(_receipts(batch)))
            connection.execute(
                sa.update(assets)
                .where(assets.c.id == batch.batch_id)
                .values(
                    state="loaded",
                    run_id=batch.run_id,
                    events_read=outcome.read,
                    events_loaded=outcome.loaded,
                    events_negative=outcome.negative,
                    events_rejected=outcome.rejected,
                    events_late=batch.late,
                    first_ts=outcome.first_ts,
                    last_ts=outcome.last_ts,
                    loaded_at=sa.func.clock_timestamp(),
                    not_before=None,
                )
            )
    return outcome


def _outcome(batch: ReadyBatch, *, fresh: bool) -> Loaded:
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
    )


def _copy_facts(
    cursor: psycopg.Cursor[tuple[object, ...]], spec: StreamSpec, batch: ReadyBatch, ids: npt.NDArray[np.int32]
) -> None:
    if not len(batch.columns):
        return
    measures = ", ".join(quoted(name) for name in spec.measures)
    statement = (
        f'copy "{spec.name}_events" (ts, received_at, batch_id, series_id, {measures}) from stdin (format binary)'
    )
    with cursor.copy(statement.encode()) as copy:
        for chunk in fact_rows(batch.columns, batch.batch_id, ids):
            copy.write(chunk)


def _merge_minutes(
    cursor: psycopg.Cursor[tuple[object, ...]], spec: StreamSpec, aggregates: Aggregates, ids: npt.NDArray[np.int32]
) -> None:
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
        b"copy dead_letters (stream, reason, field, message, payload, batch_id, run_id, receipt, line, received_at) "
        b"from stdin"
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
