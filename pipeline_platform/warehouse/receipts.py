"""What became of accepted requests, answered from the ledger's ranges and the batches' receipts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.entries import EntryId, Receipt
from pipeline_platform.warehouse.engine import warehouse_errors

# Unnested, not subscripted: each subscript would fetch the whole array again.
_COUNTS = sa.text(
    """
    select u.ms, u.seq, u.received, u.negative, u.rejected, case when u.rejected > 0 then (
        select count(*) from dead_letters d
        where d.receipt = a.stream || '.' || u.ms || '-' || u.seq and d.batch_id = a.id and d.state = 'replayed'
    ) else 0 end as replayed
    from batch_receipts r join assets a on a.id = r.batch_id,
        unnest(r.entry_ms, r.entry_seq, r.received, r.negative, r.rejected) u(ms, seq, received, negative, rejected)
    where r.batch_id = :batch_id
        and (u.ms, u.seq) in (select * from unnest(cast(:ms as bigint[]), cast(:seq as bigint[])))
    """
)
_REASONS = sa.text("select reason, count(*) from dead_letters where receipt = :receipt group by reason order by reason")
_LOADED = sa.text(
    """
    select id, first_ms, first_seq, last_ms, last_seq
    from assets
    where stream = :stream and kind = 'ingest' and state not in ('planned', 'failed')
        and (first_ms, first_seq) <= (:last_ms, :last_seq)
        and (last_ms, last_seq) >= (:first_ms, :first_seq)
    order by first_ms, first_seq
    """
)


@dataclass(frozen=True, slots=True)
class EntryCounts:
    """What became of the events of one request; `replayed` of the rejected are settled by a replay since.

    Once replayed dead letters are past their retention, `replayed` forgets them.
    """

    received: int
    negative: int
    rejected: int
    replayed: int = 0

    @property
    def loaded(self) -> int:
        """Events in the facts by the batch itself."""
        return self.received - self.negative - self.rejected


def entry_counts(engine: sa.Engine, batch_id: int, entries: Sequence[EntryId]) -> dict[EntryId, EntryCounts]:
    """The counts of those `entries` that the loaded batch has."""
    parameters = {"batch_id": batch_id, "ms": [entry.ms for entry in entries], "seq": [entry.seq for entry in entries]}
    with warehouse_errors(), engine.connect() as connection:
        rows: Iterable[Any] = connection.execute(_COUNTS, parameters)
        return {
            EntryId(row.ms, row.seq): EntryCounts(row.received, row.negative, row.rejected, row.replayed)
            for row in rows
        }


def entry_reasons(engine: sa.Engine, receipt: Receipt) -> dict[str, int]:
    """Why events of the request were rejected, and how many for each reason; dead letters that are purged are not."""
    with warehouse_errors(), engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(_REASONS, {"receipt": str(receipt)})}


def settled_entries(engine: sa.Engine, stream: str, entries: Sequence[EntryId]) -> set[EntryId]:
    """Those of `entries` whose batch is settled: one query, however many ask."""
    if not entries:
        return set()
    first, last = min(entries), max(entries)
    parameters = {
        "stream": stream,
        "first_ms": first.ms,
        "first_seq": first.seq,
        "last_ms": last.ms,
        "last_seq": last.seq,
    }
    with warehouse_errors(), engine.connect() as connection:
        rows: list[Any] = list(connection.execute(_LOADED, parameters))
    ranges = [(EntryId(row.first_ms, row.first_seq), EntryId(row.last_ms, row.last_seq)) for row in rows]
    return {entry for entry in entries if any(low <= entry <= high for low, high in ranges)}
