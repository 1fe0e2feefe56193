"""Keeps Dagster's own history within bounds; the ledger in `assets` keeps every batch's outcome anyway."""

# No postponed annotations here: Dagster reads them at run time.

from datetime import UTC, datetime, timedelta

import dagster as dg

from pipeline_platform.orchestration.resources import CALM, HistoryLimits
from pipeline_platform.orchestration.runtime.retention import purge_runs


def history_job(limits: HistoryLimits) -> dg.JobDefinition:
    """A job that purges the runs that are past their time."""

    @dg.op(description="Deletes finished runs, with their events, by age and state.")
    def purge_finished_runs(context: dg.OpExecutionContext) -> None:
        failed = timedelta(days=limits.keep_failed_days)
        keep = {
            dg.DagsterRunStatus.SUCCESS: timedelta(hours=limits.keep_succeeded_hours),
            dg.DagsterRunStatus.FAILURE: failed,
            dg.DagsterRunStatus.CANCELED: failed,
        }
        purged = purge_runs(context.instance, keep, datetime.now(UTC))
        context.add_output_metadata({"purged": sum(purged.values()), **purged})

    @dg.job(
        name="purge_history",
        description="Deletes finished runs with their events: successes after hours, failures after days.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
    )
    def purge_history() -> None:
        purge_finished_runs()

    return purge_history


def history_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Every ten minutes, in small steps."""
    return dg.ScheduleDefinition(
        name="purge_history_every_10_minutes",
        job=job,
        cron_schedule="5-59/10 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
