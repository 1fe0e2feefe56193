"""The last window of each grain, on the clock: so that hours without events are shown as done, too."""

# No postponed annotations here: Dagster reads them at run time.

from typing import Any

import dagster as dg

from pipeline_platform.core.rollups import Grain

MINUTE = {Grain.HOUR: 1, Grain.DAY: 4}  # past the hour, and past midnight UTC


def rollup_schedule(job: Any, grain: Grain) -> Any:
    """Requests the window that has just ended. What was missed meanwhile is marked, and the sensor's."""
    return dg.build_schedule_from_partitioned_job(
        job,
        name=f"{job.name}_schedule",
        minute_of_hour=MINUTE[grain],
        hour_of_day=None if grain is Grain.HOUR else 0,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
