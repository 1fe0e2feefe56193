"""The load of a replay's batch: facts, aggregates and what becomes of each dead letter, in one transaction, once.

As for any batch the ledger's row is locked first and decides. Letters whose events are good, or dropped as negative,
are `replayed` by the same commit; those that are refused again are open again, with what is wrong with them now.
"""

from __future__ import annotations

import numpy as np
import psycopg
import sqlalchemy as sa

from pipeline_platform.core.letters import Rebuilt
from pipeline_platform.core.rejections import Rejections
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.times import Int64s
from pipeline_platform.core.windows import days_touched
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.warehouse.alerts import recovered
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.load import (
    Loaded,
    ReadyBatch,
    copy_facts,
    merge_minutes,
    outcome_of,
    settle_batch,
    without_repeats,
)
from pipeline_platform.warehouse.partitions import ensure_partitions
from pipeline_platform.warehouse.replays import settle_burials, settle_replay
from pipeline_platform.warehouse.rollup_marks import mark_hours
from pipeline_platform.warehouse.schema import UNSETTLED, assets, dead_letters
from pipeline_platform.warehouse.series import series_ids
from pipeline_platform.warehouse.text import storable

_PASSED = b"""
update dead_letters set state = 'replayed', settled_at = clock_timestamp()
where id = any(%s::bigint[]) and replay_batch_id = %s and state = 'replaying'
"""
_REFUSED = b"""
update dead_letters d set state = 'open', attempts = d.attempts + 1, last_failed_at = clock_timestamp(),
    reason = p.reason, field = p.field, message = p.message, run_id = %s
from unnest(%s::bigint[], %s::int[]) r (id, kind)
    join unnest(%s::text[], %s::text[], %s::text[]) with ordinality p (reason, field, message, place)
        on p.place = r.kind + 1
where d.id = r.id and d.replay_batch_id = %s and d.state = 'replaying'
"""


def load_replay(engine: sa.Engine, spec: StreamSpec, batch: ReadyBatch) -> Loaded:
    """Loads the batch of a replay exactly once; its `letters` say which dead letter each line is.

    Raises WarehouseUnavailableError, TransientError, PoisonError or PermanentError.
    """
    letters = batch.letters
    if letters is None:
        raise PermanentError(f"Batch {batch.batch_id} was not read from dead letters.")
    with warehouse_errors():
        with engine.connect() as connection:
            ensure_partitions(connection, spec.name, days_touched(batch.columns.ts_us))
            ids = series_ids(connection, spec, batch.columns.series)
        with engine.begin() as connection:
            query = sa.select(assets.c.state, assets.c.failed_at, assets.c.replay_id, assets.c.kind)
            row = connection.execute(query.where(assets.c.id == batch.batch_id).with_for_update()).one_or_none()
            if row is None or row.kind != "replay":
                raise PermanentError(f"Batch {batch.batch_id} is no batch of a replay in the ledger.")
            outcome = outcome_of(batch, fresh=row.state in UNSETTLED)
            if not outcome.fresh:
                return outcome
            raw = connection.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            with raw.cursor() as cursor:
                batch = without_repeats(cursor, spec, batch)
                outcome = outcome_of(batch, fresh=True)
                copy_facts(cursor, spec, batch, ids)
                merge_minutes(cursor, spec, batch.aggregates, ids)
                _settle_letters(cursor, batch, letters)
                behind = mark_hours(cursor, spec.name, batch.aggregates)
            settle_batch(connection, batch, outcome, behind)
            settle_burials(connection, dead_letters.c.replay_batch_id == batch.batch_id)
            settle_replay(connection, row.replay_id)
            if row.failed_at is not None:
                recovered(connection, spec.name, batch.batch_id)
    return outcome


def _settle_letters(cursor: psycopg.Cursor[tuple[object, ...]], batch: ReadyBatch, letters: Rebuilt) -> None:
    """Moves every letter of the batch on. The batch must hold just what was read: it may have been halved since."""
    refused = letters.refused(batch.rejections)
    passed = np.setdiff1d(letters.ids, refused, assume_unique=True)
    cursor.execute(_PASSED, [passed.tolist(), batch.batch_id])
    moved = cursor.rowcount
    if len(refused):
        cursor.execute(_REFUSED, _again(batch, batch.rejections, refused))
        moved += cursor.rowcount
    cursor.execute(
        b"select count(*) from dead_letters where replay_batch_id = %s and state = 'replaying'", [batch.batch_id]
    )
    left = cursor.fetchone()
    if moved != len(letters.ids) or left != (0,):
        raise TransientError(
            f"The dead letters of batch {batch.batch_id} are others than when they were read; it is tried again."
        )


def _again(batch: ReadyBatch, rejections: Rejections, refused: Int64s) -> list[object]:
    problems = rejections.problems
    return [
        batch.run_id,
        refused.tolist(),
        rejections.kind.tolist(),
        [problem.reason.value for problem in problems],
        [storable(problem.field) or None for problem in problems],
        [storable(problem.message) for problem in problems],
        batch.batch_id,
    ]
