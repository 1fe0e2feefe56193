"""Failed runs in `assets`: which of them the ledger knows of, and a row for each run that has none.

A run of a batch is told of in the batch's row. A failed run of any other job leaves a row of its own, with the asset
key `job/<name>`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from pipeline_platform.core.failures import FailureKind
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger_rows import runs_with
from pipeline_platform.warehouse.schema import UNSETTLED, assets
from pipeline_platform.warehouse.text import storable

OF_JOB = "job/"  # before the job's name: the asset key of a failed run that no other row tells of


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A Dagster run that failed or was canceled. `message` never holds a secret. Times are aware."""

    run_id: str
    job: str
    kind: FailureKind
    error_class: str
    message: str
    failed_at: datetime
    op: str = ""
    partition: str | None = None
    requested_at: datetime | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """What the ledger knows of a unit of work's latest attempt; `untold`: not yet that it has failed, or loaded."""

    id: int
    attempt: int
    run_id: str | None
    run_ids: tuple[str, ...]
    untold: bool
    etl_asset: str | None  # its asset, where it is a partition's


def batches_of_runs(engine: sa.Engine, batch_ids: Collection[int], run_ids: Collection[str]) -> list[KnownBatch]:
    """The rows with those numbers, and those that any of the runs has worked on or is told of in."""
    runs = sa.cast(sorted(run_ids), ARRAY(sa.Text))
    query = sa.select(
        assets.c.id,
        assets.c.attempt,
        assets.c.run_id,
        assets.c.run_ids,
        sa.and_(
            assets.c.not_before.is_(None),
            # A failed job's own row, which nothing tries again, has no such time either.
            sa.or_(assets.c.state == "planned", sa.and_(assets.c.state == "failed", assets.c.kind != "etl")),
        ),
        sa.case((assets.c.kind == "etl", assets.c.asset_key)),
    ).where(sa.or_(assets.c.id.in_(sorted(batch_ids)), assets.c.run_ids.op("&&")(runs)))
    with warehouse_errors(), engine.connect() as connection:
        return [KnownBatch(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in connection.execute(query)]


def note_run(engine: sa.Engine, batch_id: int, attempt: int, run_id: str) -> None:
    """Adds a run that failed before it could do so itself to the runs of its batch, if that is not settled."""
    latest = sa.and_(assets.c.attempt == attempt, assets.c.run_id.is_(None))
    statement = (
        sa.update(assets)
        .where(assets.c.id == batch_id, assets.c.state.in_(UNSETTLED), ~assets.c.run_ids.contains([run_id]))
        .values(run_ids=runs_with(run_id), run_id=sa.case((latest, run_id), else_=assets.c.run_id))
    )
    with warehouse_errors(), engine.begin() as connection:
        connection.execute(statement)


def record_failed_runs(engine: sa.Engine, runs: Iterable[FailedRun]) -> int:
    """Writes a row for each run that has none yet; how many are new."""
    values: Sequence[dict[str, object]] = [_values(run) for run in runs]
    if not values:
        return 0
    statement = insert(assets).on_conflict_do_nothing().returning(assets.c.id)
    with warehouse_errors(), engine.begin() as connection:
        return len(connection.execute(statement, values).all())


def _values(run: FailedRun) -> dict[str, object]:
    message = storable(f"{run.op}: {run.message}" if run.op else run.message)
    note = {
        "attempt": 1,
        "mode": "plain",
        "op": run.op,
        "retried": 0,
        "final": True,
        "kind": run.kind.value,
        "error_class": run.error_class[:200],
        "message": storable(run.message)[:500],
        "run_id": run.run_id,
        "at": run.failed_at.isoformat(),
    }
    return {
        "kind": "etl",
        "asset_key": f"{OF_JOB}{run.job}",
        "job_name": run.job,
        "partition_key": run.partition,
        "state": "failed",
        "attempt": 1,
        "run_id": run.run_id,
        "run_ids": [run.run_id],
        "error_kind": run.kind.value,
        "error_class": run.error_class[:200],
        "error_message": message[:2000],
        "failures": [note],
        "requested_at": run.requested_at,
        "started_at": run.started_at,
        "failed_at": run.failed_at,
    }
