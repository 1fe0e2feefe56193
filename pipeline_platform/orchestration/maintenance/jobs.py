"""Closes the days that are over and drops what is past its retention."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.resources import CALM, Warehouse
from pipeline_platform.warehouse import dead_letters, event_ids
from pipeline_platform.warehouse.audit import purge_audit
from pipeline_platform.warehouse.ledger_retention import purge_batches, purge_etl
from pipeline_platform.warehouse.ledger_totals import fold_totals
from pipeline_platform.warehouse.partitions import close_days, drop_expired
from pipeline_platform.warehouse.quotes import purge_quotes


def maintenance_job(
    specs: Sequence[StreamSpec],
    keep_alerts_days: float,
    keep_letters: Mapping[str, timedelta],
    keep_quotes_days: float,
    keep_batches_days: float,
    keep_audit_days: float,
) -> dg.JobDefinition:
    """A job: BRIN indexes for closed days; retention for days, alerts, letters, event ids, quotes, ledger and audit."""

    @dg.op(description="Indexes the partitions of days that are over and drops the expired ones.")
    def maintain_partitions(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        now = datetime.now(UTC)
        closed = [name for spec in specs for name in close_days(warehouse.owner_engine, spec, now)]
        dropped = [name for spec in specs for name in drop_expired(warehouse.owner_engine, spec, now)]
        context.add_output_metadata({"indexed": ", ".join(closed) or "none", "dropped": ", ".join(dropped) or "none"})

    @dg.op(description="Deletes the alerts that ended, or were last raised, long ago.")
    def purge_alerts(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        before = datetime.now(UTC) - timedelta(days=keep_alerts_days)
        context.add_output_metadata({"purged": warehouse.alert_outbox.purge(before)})

    @dg.op(description="Deletes the dead letters that have been in their state for longer than it is kept.")
    def purge_dead_letters(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        context.add_output_metadata(dead_letters.purge(warehouse.owner_engine, keep_letters, datetime.now(UTC)))

    @dg.op(description="Deletes the event ids that are free again, stream by stream.")
    def purge_event_ids(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        purged = {spec.name: event_ids.purge_expired_ids(warehouse.owner_engine, spec) for spec in specs}
        context.add_output_metadata({name: gone for name, gone in purged.items() if gone})

    @dg.op(description="Deletes old quotes, but never a symbol's latest.")
    def purge_old_quotes(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        before = datetime.now(UTC) - timedelta(days=keep_quotes_days)
        context.add_output_metadata({"purged": purge_quotes(warehouse.owner_engine, before)})

    @dg.op(description="Folds settled batches into the streams' totals and deletes those that are kept no longer.")
    def maintain_ledger(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        before = datetime.now(UTC) - timedelta(days=keep_batches_days)
        engine = warehouse.owner_engine
        purged = {"etl": purge_etl(engine, before)}
        for spec in specs:
            fold_totals(engine, spec.name)
            purged[spec.name] = purge_batches(engine, spec.name, before)
        context.add_output_metadata({name: gone for name, gone in purged.items() if gone})

    @dg.op(description="Deletes old rows of the audit, which only the owner can.")
    def purge_old_audit(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        before = datetime.now(UTC) - timedelta(days=keep_audit_days)
        context.add_output_metadata({"purged": purge_audit(warehouse.owner_engine, before)})

    @dg.job(
        name="maintain_warehouse",
        description="Indexes closed days; drops what is past its time: days, alerts, letters, ids, quotes, batches, "
        "audit.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
    )
    def maintain_warehouse() -> None:
        maintain_partitions()
        purge_alerts()
        purge_dead_letters()
        purge_event_ids()
        purge_old_quotes()
        maintain_ledger()
        purge_old_audit()

    return maintain_warehouse


def maintenance_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every hour, some minutes past."""
    return dg.ScheduleDefinition(
        name="maintain_warehouse_hourly",
        job=job,
        cron_schedule="7 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
