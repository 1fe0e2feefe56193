"""Closes the days that are over and drops what is past its retention."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.resources import CALM, Warehouse
from pipeline_platform.warehouse.partitions import close_days, drop_expired


def maintenance_job(specs: Sequence[StreamSpec]) -> dg.JobDefinition:
    """A job with one op: BRIN indexes for closed days, retention for old ones."""

    @dg.op(description="Indexes the partitions of days that are over and drops the expired ones.")
    def maintain_partitions(context: dg.OpExecutionContext, warehouse: Warehouse) -> None:
        now = datetime.now(UTC)
        closed = [name for spec in specs for name in close_days(warehouse.owner_engine, spec, now)]
        dropped = [name for spec in specs for name in drop_expired(warehouse.owner_engine, spec, now)]
        context.add_output_metadata({"indexed": ", ".join(closed) or "none", "dropped": ", ".join(dropped) or "none"})

    @dg.job(
        name="maintain_warehouse",
        description="Indexes closed days and drops the days past each stream's retention.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
    )
    def maintain_warehouse() -> None:
        maintain_partitions()

    return maintain_warehouse


def maintenance_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every hour, some minutes past."""
    return dg.ScheduleDefinition(
        name="maintain_warehouse_hourly",
        job=job,
        cron_schedule="7 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
