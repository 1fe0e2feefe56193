"""The ledger's rows of ETL work: one row a partition, or a run of an asset without, with its attempts.

A partition that failed is taken up by the next run that is for it, whatever else that run is for. One that was loaded
gets a new row when it is loaded again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from pipeline_platform.core.failures import ENDED, Failure, FailureKind
from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger_rows import last_failure, runs_with
from pipeline_platform.warehouse.schema import UNSETTLED, alerts, assets

ALERT = "asset_failing"
SETTLING = timedelta(seconds=3)  # a row is committed so long after its loaded_at, at the most
FAILING_AFTER = 3  # attempts that failed of transient causes, or were lost, before somebody is told


@dataclass(frozen=True, slots=True)
class EtlRow:
    """A run's attempt at partitions of an asset: `id` is the first of their rows, `attempt` the highest of them."""

    id: int
    attempt: int
    asset_key: str
    run_id: str


@dataclass(frozen=True, slots=True)
class EtlCounts:
    """What a partition came to. Rows that are unusable are `rejected`; they are not stored."""

    read: int = 0
    rejected: int = 0
    requests: int = 0
    first: datetime | None = None
    last: datetime | None = None


class EtlLedger:
    """Reads and writes of those rows, each a transaction of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def begin(self, asset_key: str, partitions: Collection[str], run_id: str, job_name: str) -> EtlRow:
        """The attempt of this run at its partitions, none for an asset without; the same when an op is tried again.

        What an earlier run has left unsettled of a partition is taken up; what is settled stays, beside a new row.
        """
        keys: list[str | None] = [*sorted(set(partitions))] or [None]
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"etl {asset_key}"})
            known = {
                row.partition_key: row for row in connection.execute(_UNSETTLED, {"key": asset_key, "parts": keys})
            }
            started = {
                "state": "planned",
                "run_id": run_id,
                "requested_at": sa.func.now(),
                "started_at": sa.func.now(),
                "not_before": None,
                "op_retries": 0,
                "job_name": job_name,
            }
            if again := [row.id for row in known.values() if row.run_id != run_id]:
                taken = sa.update(assets).where(assets.c.id == sa.any_(sa.literal(again, _IDS)))
                connection.execute(taken.values(attempt=assets.c.attempt + 1, run_ids=runs_with(run_id), **started))
            if new := [key for key in keys if key not in known]:
                row = sa.insert(assets).values(kind="etl", asset_key=asset_key, attempt=1, run_ids=[run_id], **started)
                connection.execute(row, [{"partition_key": key} for key in new])
            own = sa.select(sa.func.min(assets.c.id), sa.func.max(assets.c.attempt)).where(_of(asset_key, run_id))
            first, attempt = connection.execute(own).one()
        return EtlRow(first, attempt, asset_key, run_id)

    def finish(
        self, row: EtlRow, counts: Mapping[str | None, EtlCounts], *, only: Collection[str] | None = None
    ) -> None:
        """The attempt is done, or done with `only` these partitions; one without `counts` came to nothing.

        `entries` are the requests spent.
        """
        own = _of(row.asset_key, row.run_id)
        if only is not None:
            own = sa.and_(own, assets.c.partition_key == sa.any_(sa.literal(sorted(only), ARRAY(sa.Text))))
        with warehouse_errors(), self._engine.begin() as connection:
            mine = connection.execute(sa.select(assets.c.id, assets.c.partition_key).where(own).with_for_update()).all()
            if not mine:
                return  # a later run has taken all of it up
            found = [(each.id, counts.get(each.partition_key, EtlCounts())) for each in mine]
            values = {
                "ids": [row_id for row_id, _ in found],
                "requests": [each.requests for _, each in found],
                "read": [each.read for _, each in found],
                "rejected": [each.rejected for _, each in found],
                "first": [each.first for _, each in found],
                "last": [each.last for _, each in found],
            }
            connection.execute(_DONE, values)
            end_alert(connection, row.asset_key)

    def retrying(self, row_id: int, failure: Failure) -> None:
        """Records a try after which the op is tried again in the same run, in the rows of all its partitions."""
        values = {"op_retries": assets.c.op_retries + 1, **last_failure(failure)}
        with warehouse_errors(), self._engine.begin() as connection:
            connection.execute(sa.update(assets).where(_of_row(row_id, failure)).values(**values))

    def fail(self, row_id: int, failure: Failure, *, not_before: datetime) -> bool:
        """Records a failed attempt in the rows of all its partitions; False where that is known.

        Nothing requests it again by itself: the next run for a partition takes it up.
        """
        untold = assets.c.not_before.is_(None) if failure.kind in ENDED else sa.true()
        statement = (
            sa.update(assets)
            .where(_of_row(row_id, failure), untold)
            .values(state="failed", not_before=not_before, **last_failure(failure))
            .returning(assets.c.asset_key, assets.c.partition_key, assets.c.attempt)
        )
        with warehouse_errors(), self._engine.begin() as connection:
            found = connection.execute(statement).all()
            quiet = failure.kind in (FailureKind.TRANSIENT, FailureKind.LOST)
            told = failure.kind is not FailureKind.CANCELED
            if found and told and (not quiet or max(row.attempt for row in found) >= FAILING_AFTER):
                keys = [row.partition_key for row in found if row.partition_key]
                raise_alert(connection, _alert(found[0].asset_key, keys, failure))
        return bool(found)

    def resolve_alerts(self) -> None:
        """Ends the alerts of assets of which no row is failed any more."""
        query = sa.select(alerts.c.key).where(alerts.c.kind == ALERT, alerts.c.resolved_at.is_(None))
        with warehouse_errors(), self._engine.begin() as connection:
            for key in connection.scalars(query).all():
                end_alert(connection, key.removeprefix(_alert_key("")))

    def ended(self, asset_key: str, since: datetime) -> list[tuple[str, datetime]]:
        """The partitions that have been loaded or failed after `since`, with when: a failed one may have loaded a part.

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


_IDS = ARRAY(sa.BigInteger)
# All rows at one time: who follows what has ended looks a few seconds back.
_DONE = sa.text(
    """
    update assets a set state = 'loaded', entries = d.requests, events_planned = d.read, events_read = d.read,
        events_loaded = d.read - d.rejected, events_rejected = d.rejected, first_ts = d.first, last_ts = d.last,
        not_before = null, loaded_at = t.now
    from (select clock_timestamp() as now) t, unnest(
        cast(:ids as bigint[]), cast(:requests as bigint[]), cast(:read as bigint[]), cast(:rejected as bigint[]),
        cast(:first as timestamptz[]), cast(:last as timestamptz[])
    ) d (id, requests, read, rejected, first, last)
    where a.id = d.id
    """
)
_UNSETTLED = sa.text(
    """
    select distinct on (coalesce(partition_key, '')) id, partition_key, run_id from assets
    where kind = 'etl' and asset_key = :key and state in ('planned', 'failed')
        and coalesce(partition_key, '') = any(select coalesce(part, '') from unnest(cast(:parts as text[])) part)
    order by coalesce(partition_key, ''), id desc
    """
)


def _of(asset_key: str | sa.ScalarSelect[str], run_id: str) -> sa.ColumnElement[bool]:
    """The rows of the asset that the run is at, and no later one."""
    return sa.and_(
        assets.c.run_ids.contains([run_id]),
        assets.c.run_id == run_id,
        assets.c.asset_key == asset_key,
        assets.c.kind == "etl",
        assets.c.state.in_(UNSETTLED),
    )


def _of_row(row_id: int, failure: Failure) -> sa.ColumnElement[bool]:
    other = assets.alias()
    return _of(sa.select(other.c.asset_key).where(other.c.id == row_id).scalar_subquery(), failure.run_id or "")


def end_alert(connection: sa.Connection, asset_key: str, why: str = "") -> None:
    """Ends the asset's alert, with a word of `why`, unless one of its rows is failed still."""
    failing = sa.select(assets.c.id).where(
        assets.c.kind == "etl", assets.c.asset_key == asset_key, assets.c.state == "failed"
    )
    if connection.execute(failing.limit(1)).first() is None:
        resolve_alert(connection, _alert_key(asset_key), why)


def _alert_key(asset_key: str) -> str:
    return f"asset/{asset_key}"


def _alert(asset_key: str, partitions: Collection[str], failure: Failure) -> Alert:
    return Alert(
        key=_alert_key(asset_key),
        kind=ALERT,
        severity="critical" if failure.kind is FailureKind.PERMANENT else "warning",
        title=f"{asset_key} fails ({failure.kind.value}, attempt {failure.attempt})",
        body=f"{_named(partitions)}: {failure.error_class}: {failure.message[:500]} "
        "What was loaded before stays. What is missing is requested again by the asset's sensor or schedule, or by "
        f"`pipeline-platform backfill {asset_key}`.",
    )


def _named(partitions: Collection[str]) -> str:
    """The key itself, or the first and the last of many."""
    if not partitions:
        return "Its run"
    first, last = min(partitions), max(partitions)
    return first if len(partitions) == 1 else f"{len(partitions)} partitions, {first} to {last}"
