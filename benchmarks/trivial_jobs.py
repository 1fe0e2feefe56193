"""A code location for benchmarks/trivial.py: a job of five trivial ops, and a sensor that requests runs of it.

The sensor requests as many runs as the file TRIVIAL_REQUESTS says, ROUND a tick, and remembers in its cursor how many
it has requested.
"""

# No postponed annotations here: Dagster reads them at run time.

import os
import time
from pathlib import Path

import dagster as dg

ROUND = 50  # run requests a tick
IDLE_SECONDS = 0.2  # inside a tick without requests, so that our daemon, which ticks again at once, does not spin


@dg.op
def first() -> int:
    """Makes the number that the others pass on."""
    return 1


@dg.op
def passed_on(number: int) -> int:
    """Adds one."""
    return number + 1


@dg.job(
    executor_def=dg.in_process_executor,
    resource_defs={"io_manager": dg.mem_io_manager},
    config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
)
def trivial() -> None:
    """Five ops in a row."""
    number = first()
    for _ in range(4):
        number = passed_on(number)


@dg.sensor(
    job=trivial,
    minimum_interval_seconds=int(os.environ.get("TRIVIAL_INTERVAL", "1")),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def trivial_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Requests what is wanted and not requested yet."""
    wanted = Path(os.environ["TRIVIAL_REQUESTS"])
    total, done = int(wanted.read_text()) if wanted.exists() else 0, int(context.cursor or 0)
    if total <= done:
        time.sleep(IDLE_SECONDS)
        return dg.SkipReason("nothing is wanted")
    upto = min(total, done + ROUND)
    return dg.SensorResult([dg.RunRequest(run_key=str(number)) for number in range(done, upto)], cursor=str(upto))


defs = dg.Definitions(jobs=[trivial], sensors=[trivial_sensor])
