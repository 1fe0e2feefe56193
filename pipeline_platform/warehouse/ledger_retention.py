"""Lets go of old rows of the ledger: of success after a while, of failure when somebody has decided about it."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform.warehouse.ledger import Ledger

_OLD = "a.planned_at < :before and greatest(a.loaded_at, a.failed_at) < :before"
# Whatever is in the queue still, is the newest batch, or has dead letters, is needed. Totals keep what was folded.
_BATCHES = f"""
    select a.id from assets a join ledger_totals t using (stream)
    where stream = :stream and {_OLD} and a.id <= t.through_id and a.state in ('loaded', 'replayed')
        and (a.kind = 'replay' or a.kind = 'ingest'
            and (a.last_ms, a.last_seq) < (:mark_ms, :mark_seq) and (a.last_ms, a.last_seq) < (:last_ms, :last_seq))
        and not exists (select from dead_letters d where d.batch_id = a.id)
        and not exists (select from dead_letters d where d.replay_batch_id = a.id)
"""
_RUNS = f"select a.id from assets a where a.kind = 'etl' and {_OLD} and a.state not in ('planned', 'dead')"


def purge_batches(engine: sa.Engine, stream: str, before: datetime, step: int = 5_000) -> int:
    """Deletes the stream's batches that were loaded before then, with their receipts; how many.

    Never: batches that were given up or are to be tried again, those with dead letters of whatever state, and the
    newest, after which planning goes on. `step` rows a transaction.
    """
    ledger = Ledger(engine)
    mark, last = ledger.watermark(stream), ledger.last_planned(stream)
    where = {"stream": stream, "before": before}
    where |= {"mark_ms": mark.ms, "mark_seq": mark.seq, "last_ms": last.ms, "last_seq": last.seq}
    return _purge(engine, _BATCHES, where, step)


def purge_etl(engine: sa.Engine, before: datetime, step: int = 5_000) -> int:
    """Deletes the rows of ETL runs, and of failed runs of other jobs, that ended before then; how many."""
    purged = _purge(engine, _RUNS, {"before": before}, step)
    if purged:
        EtlLedger(engine).resolve_alerts()
    return purged


def _purge(engine: sa.Engine, which: str, where: dict[str, object], step: int) -> int:
    statement = sa.text(
        f"delete from assets where id in ({which} order by a.planned_at limit {step:d} for update of a skip locked)"
    )
    purged = 0
    while True:
        with warehouse_errors(), engine.begin() as connection:
            gone = connection.execute(statement, where).rowcount
        purged += gone
        if not gone:
            return purged
