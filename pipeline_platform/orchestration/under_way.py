"""Is a run of a job under way? So that sensors and schedules do not request the next one on top of it."""

from datetime import UTC, datetime, timedelta

import dagster as dg

UNFINISHED = [
    *(dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING),
    *(dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),
]
FORGOTTEN = timedelta(hours=2)


def run_under_way(instance: dg.DagsterInstance, job: str) -> dg.DagsterRun | None:
    """The latest unfinished run of the job.

    One of two hours ago is not believed: it ran out of time, or its place in the queue was lost.
    """
    since = datetime.now(UTC) - FORGOTTEN
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED, created_after=since), limit=1)
    return runs[0] if runs else None
