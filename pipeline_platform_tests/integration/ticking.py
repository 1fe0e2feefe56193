"""A code location for the daemon's tests: sensors and a schedule that note when they were asked."""

# No postponed annotations here: Dagster reads them at run time.

import os
import time
from pathlib import Path

import dagster as dg

from pipeline_platform.orchestration.runtime.daemon import CONTINUOUS

NOTES = Path(os.environ["TICKING_NOTES"])
ON = dg.DefaultSensorStatus.RUNNING


def note(name: str) -> dg.SkipReason:
    """Adds a line: who and when."""
    with NOTES.open("a") as file:
        file.write(f"{name} {time.time():.3f}\n")
    return dg.SkipReason("noted")


@dg.op
def nothing() -> None:
    pass


@dg.job
def idle() -> None:
    nothing()


@dg.sensor(job=idle, minimum_interval_seconds=CONTINUOUS, default_status=ON)
def fast(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return note("fast")


@dg.sensor(job=idle, minimum_interval_seconds=CONTINUOUS, default_status=ON)
def waiting(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """A long poll without data."""
    note("waiting")
    time.sleep(0.5)
    return dg.SkipReason("no data")


@dg.sensor(job=idle, minimum_interval_seconds=1, default_status=ON)
def slow(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    note("slow")
    time.sleep(3)
    return dg.SkipReason("slept")


@dg.sensor(job=idle, minimum_interval_seconds=2, default_status=ON)
def ordinary(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return note("ordinary")


@dg.schedule(job=idle, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def minutely(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
    return note("minutely")


definitions = dg.Definitions(jobs=[idle], sensors=[fast, waiting, slow, ordinary], schedules=[minutely])
