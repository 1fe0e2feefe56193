"""The ledger's rows of ETL work: one row a run and range of partitions, however many partitions that is.

A backfill of 21,900 partitions in 60 runs leaves 60 rows. What failed is taken up again by the next run of the same
range, as its next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger_rows import last_failure, runs_with
from pipeline_platform.warehouse.schema import UNSETTLED, assets

SETTLING = timedelta(seconds=3)  # a row is committed so long after its loaded_at, at the most
FAILING_AFTER = 3  # attempts that failed of transient causes, before somebody is told


@dataclass(frozen=True, slots=True)
class EtlRow:
    """An attempt at a unit of work."""

    id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class EtlCounts:
    """What a run came to. Rows that are unusable are `rejected`; they are not stored."""

    read: int = 0
    rejected: int = 0
    requests: int = 0
    first: datetime | None = None
    last: datetime | None = None


class EtlLedger:
    """Reads and writes of those rows, each a transaction of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def begin(self, asset_key: str, partition_key: str | None, run_id: str, job_name: str) -> EtlRow:
        """The row of this run's attempt; the same one when an op of the run is tried again."""
        same = sa.and_(
            assets.c.kind == "etl",
            assets.c.asset_key == asset_key,
            sa.func.coalesce(assets.c.partition_key, "") == (partition_key or ""),
            assets.c.state.in_(UNSETTLED),
        )
        with warehouse_errors(), self._engine.begin() as connection:
            lock = {"key": f"etl {asset_key} {partition_key or ''}"}
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext(:key))"), lock)
            newest = sa.select(assets.c.id, assets.c.attempt, assets.c.run_id).where(same)
            known = connection.execute(newest.order_by(assets.c.id.desc()).limit(1)).one_or_none()
            if known is not None and known.run_id == run_id:
                return EtlRow(known.id, known.attempt)
            started = {
                "state": "planned",
                "run_id": run_id,
                "requested_at": sa.func.now(),
                "started_at": sa.func.now(),
                "not_before": None,
                "op_retries": 0,
                "job_name": job_name,
            }
            if known is not None:
                again = sa.update(assets).where(assets.c.id == known.id)
                runs = runs_with(run_id)
                connection.execute(again.values(attempt=known.attempt + 1, run_ids=runs, **started))
                return EtlRow(known.id, known.attempt + 1)
            new = sa.insert(assets).values(
                kind="etl", asset_key=asset_key, partition_key=partition_key, attempt=1, run_ids=[run_id], **started
            )
            return EtlRow(connection.execute(new.returning(assets.c.id)).scalar_one(), 1)

    def finish(self, row: EtlRow, counts: EtlCounts) -> None:
        """The attempt is done. `entries` are the requests that it spent."""
        statement = (
            sa.update(assets)
            .where(assets.c.id == row.id, assets.c.attempt == row.attempt, assets.c.state.in_(UNSETTLED))
            .values(
                state="loaded",
                entries=counts.requests,
                events_planned=counts.read,
                events_read=counts.read,
                events_loaded=counts.read - counts.rejected,
                events_rejected=counts.rejected,
                first_ts=counts.first,
                last_ts=counts.last,
                not_before=None,
                loaded_at=sa.func.clock_timestamp(),
            )
            .returning(assets.c.asset_key)
        )
        with warehouse_errors(), self._engine.begin() as connection:
            if (asset_key := connection.execute(statement).scalar_one_or_none()) is not None:
                resolve_alert(connection, _alert_key(asset_key))

    def retrying(self, row_id: int, failure: Failure) -> None:
        """Records a try after which the op is tried again in the same run."""
        statement = (
            sa.update(assets)
            .where(assets.c.id == row_id, assets.c.attempt == failure.attempt, assets.c.state.in_(UNSETTLED))
            .values(op_retries=assets.c.op_retries + 1, **last_failure(failure))
        )
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(statement)

    def fail(self, row_id: int, failure: Failure, *, not_before: datetime) -> bool:
        """Records a failed attempt. Nothing requests it again by itself: the next run of the range takes it up."""
        statement = (
            sa.update(assets)
            .where(assets.c.id == row_id, assets.c.attempt == failure.attempt, assets.c.state.in_(UNSETTLED))
            .values(state="failed", not_before=not_before, **last_failure(failure))
            .returning(assets.c.asset_key, assets.c.partition_key)
        )
        with warehouse_errors(), self._engine.begin() as connection:
            found = connection.execute(statement).one_or_none()
            if found is not None and (failure.kind is not FailureKind.TRANSIENT or failure.attempt >= FAILING_AFTER):
                raise_alert(connection, _alert(found.asset_key, found.partition_key, failure))
        return found is not None

    def ended(self, asset_key: str, since: datetime) -> list[tuple[str, datetime]]:
        """The partitions whose runs have ended after `since`, with when: a failed one may have loaded a part.

        Not those of the last seconds, which others may overtake.
        """
        at = sa.func.greatest(assets.c.loaded_at, assets.c.failed_at)
        query = (
            sa.select(assets.c.partition_key, at.label("at"))
            .where(assets.c.kind == "etl", assets.c.asset_key == asset_key)
            .where(at > since, at < sa.func.now() - SETTLING)
            .order_by(at)
        )
        with warehouse_errors(), self._engine.connect() as connection:
            return [(row.partition_key, row.at) for row in connection.execute(query)]


def _alert_key(asset_key: str) -> str:
    return f"asset/{asset_key}"


def _alert(asset_key: str, partition_key: str | None, failure: Failure) -> Alert:
    return Alert(
        key=_alert_key(asset_key),
        kind="asset_failing",
        severity="critical" if failure.kind is FailureKind.PERMANENT else "warning",
        title=f"{asset_key} fails ({failure.kind.value}, attempt {failure.attempt})",
        body=f"{partition_key or 'Its run'}: {failure.error_class}: {failure.message[:500]} "
        "What was loaded before stays. What is missing is requested again by the asset's sensor or schedule, or by "
        f"`pipeline-platform backfill {asset_key}`.",
    )
