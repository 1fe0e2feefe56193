"""A stream's sums over its ledger: what is folded already, and the batches since.

A ledger grows by up to a batch a second, and the sums are asked for every second: settled batches are folded into one
row a stream, so that only those since the last fold are added up. Counts of a settled batch never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.warehouse.engine import warehouse_errors

# What a replay has settled is rejected no longer.
_SUMS = """
    select count(*) filter (where kind = 'ingest' and state = 'loaded') as batches,
        coalesce(sum(events_read) filter (where kind = 'ingest'), 0) as events_read,
        coalesce(sum(events_loaded), 0) as events_loaded,
        coalesce(sum(events_negative), 0) as events_negative,
        coalesce(sum(events_rejected) filter (where kind = 'ingest'), 0)
            - coalesce(sum(events_loaded + events_negative) filter (where kind = 'replay'), 0) as events_rejected,
        max(loaded_at) as last_loaded_at
    from assets
    where stream = :stream and kind in ('ingest', 'replay')
        and id > coalesce((select through_id from ledger_totals where stream = :stream), 0)
"""
# One statement sees one snapshot: no fold comes between its parts.
_TOTALS = sa.text(
    f"""
    select f.batches + coalesce(t.batches, 0),
        f.events_read + coalesce(t.events_read, 0),
        f.events_loaded + coalesce(t.events_loaded, 0),
        f.events_negative + coalesce(t.events_negative, 0),
        f.events_rejected + coalesce(t.events_rejected, 0),
        greatest(f.last_loaded_at, t.last_loaded_at)
    from ({_SUMS}) f left join ledger_totals t on t.stream = :stream
    """
)
# Not the rows of the last minutes: one with a lower number may be about to be committed. Rows of whatever stream, so
# that the ledger is not searched for the batches of a stream that has none.
_EDGE = sa.text(
    """
    select max(id) from assets
    where planned_at < now() - interval '10 minutes'
        and id > coalesce((select through_id from ledger_totals where stream = :stream), 0)
        and id < coalesce((
            select min(id) from assets
            where stream = :stream and kind in ('ingest', 'replay') and state in ('planned', 'failed')
        ), 9223372036854775807)
    """
)
_FOLD = sa.text(
    f"""
    insert into ledger_totals as t
        (stream, through_id, batches, events_read, events_loaded, events_negative, events_rejected, last_loaded_at)
    select :stream, :through, f.* from ({_SUMS} and id <= :through) f
    on conflict (stream) do update set
        through_id = excluded.through_id,
        batches = t.batches + excluded.batches,
        events_read = t.events_read + excluded.events_read,
        events_loaded = t.events_loaded + excluded.events_loaded,
        events_negative = t.events_negative + excluded.events_negative,
        events_rejected = t.events_rejected + excluded.events_rejected,
        last_loaded_at = greatest(t.last_loaded_at, excluded.last_loaded_at)
    """
)


@dataclass(frozen=True)
class StreamTotals:
    """A stream's sums over the ledger, since its beginning."""

    batches: int
    events_read: int
    events_loaded: int
    events_negative: int
    events_rejected: int
    last_loaded_at: datetime | None


def stream_totals(engine: sa.Engine, stream: str) -> StreamTotals:
    """Sums over all batches of the stream, also over those that are past their retention."""
    with warehouse_errors(), engine.connect() as connection:
        batches, read, loaded, negative, rejected, last = connection.execute(_TOTALS, {"stream": stream}).one()
    return StreamTotals(int(batches), int(read), int(loaded), int(negative), int(rejected), last)


def fold_totals(engine: sa.Engine, stream: str) -> int | None:
    """Folds the stream's batches, up to the first that is not settled; returns the number that all are folded through.

    None where there is nothing new.
    """
    with warehouse_errors(), engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"fold {stream}"})
        through: int | None = connection.scalar(_EDGE, {"stream": stream})
        if through is not None:
            connection.execute(_FOLD, {"stream": stream, "through": through})
    return through
